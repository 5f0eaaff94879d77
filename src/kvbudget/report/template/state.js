// What is shown: the plan in the file, or one for another budget, context or batch size.

function readReport() {
  const report = JSON.parse(byId("data").textContent);
  report.caches = cachesOf(report.model);
  report.curves = readCurves(JSON.parse(report.fixed.fields.curves), report.model);
  return report;
}

// Losses of the caches that there are, flat, or null.
function readCurves(curves, model) {
  if (curves === null) return null;
  const present = curves.loss.flatMap((heads, layer) => heads.slice(0, model.kv_heads[layer]));
  return { keptFraction: curves.kept_fraction, loss: Float64Array.from(present.flat()) };
}

// The problem of a context and a batch size, with its steps and its frontier; null if it has none.
function stateProblem(report, context, batch) {
  const { model, caches, curves, rules } = report;
  const menu = menuOf(model, caches, curves, rules, context, batch);
  const problem = reduce(caches, curves, rules, menu);
  if (problem === null) return null;
  const segments = segmentsOf(problem);
  const frontier = frontierOf(problem, segments);
  return { problem, segments, frontier, floor: bytesAtLevel(problem, 0), equal: equalOf(problem) };
}

// What is lost, and used, where every cache takes the same level.
function equalOf(problem) {
  return Array.from({ length: problem.levels }, (_, level) => {
    const chosen = new Int32Array(problem.units).fill(level);
    const { loss, tokens } = solutionOf(problem, chosen, 0, 0);
    return { level, loss, tokens, bytes: bytesAtLevel(problem, level) };
  });
}

// The plan in the file, told like a plan of the page.
function filedView(report) {
  const { plan, model } = report;
  const { context_tokens: context, batch_size: batch, certificate } = plan;
  const view = {
    source: "file",
    context,
    batch,
    budgetBytes: plan.budget_bytes,
    usedBytes: plan.used_bytes,
    fullBytes: fullBytes(model, context, batch),
    tokens: plan.tokens,
    level: null,
    lossOfCache: null,
    ...certificate,
  };
  if (report.curves) Object.assign(view, levelsOf(report, view));
  return view;
}

// The levels that numbers of tokens are, and the losses there.
function levelsOf(report, view) {
  const { caches, curves, model, rules } = report;
  const { levels, capacity } = menuOf(model, caches, curves, rules, view.context, view.batch);
  const level = view.tokens.map((tokens, cache) => {
    const row = capacity.subarray(cache * levels, (cache + 1) * levels);
    return Math.max(row.findLastIndex((each) => each <= tokens), 0);
  });
  const lossOfCache = level.map((at, cache) => curves.loss[cache * levels + at]);
  return { level, lossOfCache };
}

// The plan for a budget; a text that says why there is none, else.
function solvedView(report, stated, budgetText, context, batch) {
  const full = fullBytes(report.model, context, batch);
  const budget = readBudget(budgetText, full, bytesPerToken(report.model, batch));
  if (typeof budget === "string") return budget;
  const solution = divide(stated.problem, stated.segments, budget);
  if (solution === null) {
    const [least, asked] = formatPair(stated.floor, budget);
    return `Nothing fits ${asked}: the smallest plan needs ${least}.`;
  }
  return {
    source: "budget",
    solver: "Hull",
    risk: report.plan.certificate.risk,
    context,
    batch,
    fullBytes: full,
    ...solution,
    // pages are counted against the budget, but a plan holds its tokens alone
    usedBytes: heldBytes(report.caches, solution.tokens, batch),
  };
}

function heldBytes(caches, tokens, batch) {
  return tokens.reduce((sum, each, cache) => sum + each * caches.tokenBytes[cache] * batch, 0);
}

// Why a context or a batch size cannot be used: a text; null if it can.
function objection(name, value) {
  return Number.isInteger(value) && value >= 1 ? null : `${name} is a whole number of at least 1.`;
}

// Tenths of a percent at which the slider stands. A share stays where it was put: its bytes are
// rounded down, so that they alone would draw the slider back by a step.
function sliderPlace(budget, bytes, full) {
  const named = /^(\d+(?:\.\d)?)%$/.exec(budget);
  return named ? Math.round(Number(named[1]) * 10) : Math.floor((bytes * 1000) / full);
}

// The share that a budget is, if a tenth of a percent names it; else its bytes.
function budgetText(bytes, full) {
  const tenths = Math.ceil((bytes * 1000) / full);
  const named = tenths <= 1000 && shareBytes(tenths, full) === bytes;
  return named ? `${tenths / 10}%` : `${bytes} B`;
}

function shareBytes(tenths, full) {
  return Number((BigInt(tenths) * BigInt(full)) / 1000n);
}
