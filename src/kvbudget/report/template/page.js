// The page: what the controls ask for, and what is drawn.

const report = readReport();
const canTry = report.obstacle === null;
const state = { view: filedView(report), stated: null, menu: null, budget: "", cache: 0 };
const filed = state.view;
const NO_LEVEL = "The constraints leave a cache no level.";

function statedFor(context, batch) {
  const known = state.stated;
  if (known && known.context === context && known.batch === batch) return known;
  return { ...stateProblem(report, context, batch), context, batch };
}

// Takes what the fields say; draws it, or says what is wrong with it.
function apply(budget) {
  const fields = [byId("context"), byId("batch"), byId("budget")];
  fields.forEach((field) => field.removeAttribute("aria-invalid"));
  const [context, batch] = fields.map((field) => Number(field.value));
  const wrong = [objection("The context", context), objection("The batch size", batch)];
  const first = wrong.findIndex((text) => text !== null);
  if (first >= 0) return refuse(fields[first], wrong[first]);
  if (!(fullBytes(report.model, context, batch) <= MOST_BYTES)) {
    return refuse(fields[0], "So many tokens need more bytes than a page can count.");
  }
  const stated = statedFor(context, batch);
  if (!stated.problem) return refuse(fields[0], NO_LEVEL);
  const view = solvedView(report, stated, budget, context, batch);
  state.budget = budget;
  if (typeof view === "string") return refuse(fields[2], view);
  byId("refusal").hidden = true;
  // only now, so that what is drawn always belongs together
  Object.assign(state, { view, stated });
  return draw();
}

function refuse(field, text) {
  field.setAttribute("aria-invalid", "true");
  byId("refusal").textContent = text;
  byId("refusal").hidden = false;
}

function asFiled() {
  const { context, batch, budgetBytes, fullBytes: full } = filed;
  byId("context").value = context;
  byId("batch").value = batch;
  ["context", "batch", "budget"].forEach((id) => byId(id).removeAttribute("aria-invalid"));
  byId("refusal").hidden = true;
  state.stated = statedFor(context, batch);
  state.budget = budgetText(budgetBytes, full);
  state.view = filed;
  draw();
}

function drawControls() {
  const { view, stated } = state;
  const slider = byId("slider");
  const end = stated.frontier.bytes[stated.frontier.bytes.length - 1];
  const tenths = (bytes) => Math.min(Math.ceil((bytes * 1000) / view.fullBytes), 1000);
  slider.min = tenths(stated.floor);
  slider.max = Math.max(tenths(end), tenths(stated.floor));
  slider.value = sliderPlace(state.budget, view.budgetBytes, view.fullBytes);
  const shown = `${percent(view.budgetBytes / view.fullBytes)}, ${formatBytes(view.budgetBytes)}`;
  say("budget-shown", shown);
  slider.setAttribute("aria-valuetext", shown);
  if (document.activeElement !== byId("budget")) byId("budget").value = state.budget;
  document.querySelectorAll("[data-budget]").forEach((button) => {
    const pressed = view.source !== "file" && button.dataset.budget === state.budget;
    button.setAttribute("aria-pressed", pressed);
  });
  byId("as-filed").setAttribute("aria-pressed", view.source === "file");
}

function drawShown() {
  const { view } = state;
  const made = view.source === "file" ? `The plan in ${report.name}` : "Divided anew in this page";
  const bound = view.status === "OPTIMAL" ? "optimal" : `gap ${percent(view.gap, 2)}`;
  const batch = view.batch === 1 ? "" : `, ${view.batch} sequences`;
  const context = counted(view.context, "token");
  say("shown", `${made}: ${context}${batch}, found by ${view.solver} (${bound}).`);
}

const map = heatMap(byId("map"), report.caches, pick);
const table = cacheTable(byId("table"), byId("more"), columnsOf(report), report.caches.count, pick);

function pick(cache) {
  state.cache = cache;
  map.mark(cache);
  table.mark(cache);
  drawOne();
}

// asked for once in a while, because the answer takes a layout of the whole page
const widths = {};

function measureWidths() {
  ["map", "front", "curve", "check"].forEach((id) => {
    widths[id] = Math.max(byId(id).clientWidth, 260);
  });
}

function menuFor({ context, batch }) {
  const known = state.menu;
  if (!known || known.context !== context || known.batch !== batch) {
    const { model, caches, curves, rules } = report;
    state.menu = { ...menuOf(model, caches, curves, rules, context, batch), context, batch };
  }
  return state.menu;
}

function drawOne() {
  if (!report.curves) return;
  const { view, cache } = state;
  const levels = report.curves.keptFraction.length;
  const menu = menuFor(view);
  const part = (values) => Array.from(values.subarray(cache * levels, (cache + 1) * levels));
  const loss = Float64Array.from(part(report.curves.loss));
  const single = { units: 1, levels, cost: Float64Array.from(part(menu.cost)), loss };
  fallOnly(loss, 1, levels);
  const curve = {
    name: nameOf(report.caches, cache),
    tokens: part(menu.capacity),
    loss: part(report.curves.loss),
    level: view.level[cache],
    hull: lowerHull(single),
  };
  say("curve-title", `One cache: ${curve.name}`);
  byId("curve").replaceChildren(drawCurve(widths.curve, curve, report.unit));
  showLegend("curve-legend", curveLegend());
}

// The chart is drawn anew for another context or width; a plan only moves its mark.
function drawFrontier() {
  if (!canTry) return;
  const { view, stated } = state;
  const sameContext = view.context === filed.context;
  if (stated.chart?.width !== widths.front) {
    const share = (bytes) => bytes / view.fullBytes;
    const front = {
      share: Array.from(stated.frontier.bytes, share),
      loss: Array.from(stated.frontier.loss),
      equal: stated.equal.map((each) => ({ share: share(each.bytes), loss: each.loss })),
      spread: sameContext ? report.spread : null,
      filed: { share: filed.usedBytes / filed.fullBytes, loss: filed.loss },
    };
    stated.chart = { ...frontChart(widths.front, front, report.unit), width: widths.front, front };
  }
  const { element, front, move } = stated.chart;
  const hasFiled = sameContext && view.source !== "file";
  move(view, hasFiled);
  if (byId("front").firstChild !== element) byId("front").replaceChildren(element);
  showLegend("front-legend", frontLegend(front, report.name, hasFiled, view.source));
}

function drawCheckPart() {
  if (!report.check) return;
  const width = Math.min(widths.check, 620);
  byId("check").replaceChildren(drawCheck(width, report.check));
  showLegend("check-legend", checkLegend(report.check));
}

function drawTaken() {
  if (!canTry) return;
  const { view } = state;
  const batch = view.batch === 1 ? "" : ` --batch ${view.batch}`;
  const asked = `--budget ${view.budgetBytes} --context ${view.context}${batch}`;
  const isHull = view.solver === "Hull";
  const made = `${view.solver} found the plan in the file; this divides as many bytes with Hull:`;
  say("command-intro", isHull ? "This command makes the plan that is shown:" : made);
  say("command", `${report.command} ${asked} --out plan.json`);
  say("taken", "");
}

function draw() {
  const { view } = state;
  if (canTry) drawControls();
  drawShown();
  drawFigures(report, view, state.stated?.equal ?? []);
  map.show({
    tokens: view.tokens,
    context: view.context,
    label: mapLabel(view),
    describe: (cache) => describe(report, view, cache),
  });
  byId("scale").replaceChildren(...shadeScale(view.context));
  map.mark(state.cache);
  table.show(view);
  table.mark(state.cache);
  drawFrontier();
  drawOne();
  drawTaken();
}

function resize() {
  measureWidths();
  map.build(widths.map);
  drawFrontier();
  drawOne();
  drawCheckPart();
}

function download() {
  const { view } = state;
  const text = planText(report, view, view.context, view.batch);
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  html("a", { href: url, download: "plan.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
  say("taken", "Saved as plan.json.");
}

async function copyCommand() {
  try {
    await navigator.clipboard.writeText(byId("command").textContent);
    say("copy", "Copied");
  } catch {
    getSelection().selectAllChildren(byId("command"));
    say("copy", "Selected");
  }
  setTimeout(() => say("copy", "Copy"), 1500);
}

function listen() {
  byId("slider").addEventListener("input", (event) => apply(`${Number(event.target.value) / 10}%`));
  byId("budget").addEventListener("change", (event) => apply(event.target.value));
  ["context", "batch"].forEach((id) => byId(id).addEventListener("change", () => apply(state.budget)));
  document.querySelectorAll("[data-budget]").forEach((button) => {
    button.addEventListener("click", () => apply(button.dataset.budget));
  });
  byId("as-filed").addEventListener("click", asFiled);
  byId("download").addEventListener("click", download);
  byId("copy").addEventListener("click", copyCommand);
}

// For programs and consoles: the text of a plan's file, or why there is none.
function planFor(budget, context = filed.context, batch = filed.batch) {
  const wrong = objection("The context", context) ?? objection("The batch size", batch);
  if (!canTry || wrong) return report.obstacle ?? wrong;
  const stated = stateProblem(report, context, batch);
  if (!stated) return NO_LEVEL;
  const view = solvedView(report, stated, budget, context, batch);
  return typeof view === "string" ? view : planText(report, view, context, batch);
}

function start() {
  byId("plain").hidden = true;
  byId("main").hidden = false;
  byId("controls").hidden = !canTry;
  byId("obstacle").hidden = canTry;
  byId("pair").hidden = !report.curves;
  byId("front").closest("section").hidden = !canTry;
  byId("take").hidden = !canTry;
  byId("command-part").hidden = !report.command;
  if (!canTry) say("obstacle", report.obstacle);
  state.cache = filed.tokens.indexOf(Math.max(...filed.tokens));
  measureWidths();
  map.build(widths.map);
  if (canTry) {
    asFiled();
    listen();
  } else {
    draw();
  }
  drawCheckPart();
  let width = document.documentElement.clientWidth;
  addEventListener("resize", () => {
    const now = document.documentElement.clientWidth;
    if (now !== width) resize();
    width = now;
  });
}

window.kvbudgetPlan = planFor;
start();
