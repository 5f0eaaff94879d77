// Loss against memory, the curve of one cache, and predicted against measured.

const MARGIN = { left: 58, right: 14, top: 26, bottom: 44 };

function frameOf(width, height) {
  return {
    left: MARGIN.left,
    right: width - MARGIN.right,
    top: MARGIN.top,
    bottom: height - MARGIN.bottom,
  };
}

// Linear where losses differ by less than a factor of 30, which few powers of ten would tell apart.
const LINEAR_WITHIN = 30;

function lossAxis(losses, [from, to], unit) {
  const [low, high] = logRange(losses, 6);
  const isLog = high / low > LINEAR_WITHIN * 2.25; // the range has room of 1.5 at both ends
  const hasZero = isLog && losses.some((loss) => loss <= 0);
  const scale = isLog ? logScale([low, high], [from, to], hasZero) : linearScale([0, high], [from, to]);
  const label = ["loss", unit, isLog ? "logarithmic" : ""].filter(Boolean).join(", ");
  return { scale, ticks: scale.ticks(6), text: tickText, label, hasZero };
}

const percentTick = (share) => `${Number((100 * share).toFixed(1))} %`;
const dot = (at, kind, radius) => svg("circle", { class: kind, cx: at[0], cy: at[1], r: radius });
const diamond = ([x, y], kind, size = 6) =>
  svg("path", { class: kind, d: `M${x} ${y - size}l${size} ${size}l${-size} ${size}l${-size} ${-size}z` });
const square = ([x, y], kind, size = 4) =>
  svg("rect", { class: kind, x: x - size, y: y - size, width: 2 * size, height: 2 * size });

// The frontier, which is also the proven bound; `move` shows where a plan lies.
function frontChart(width, front, unit) {
  const height = Math.max(250, Math.min(340, width * 0.55));
  const frame = frameOf(width, height);
  const xs = linearScale([0, 1], [frame.left, frame.right]);
  const most = front.spread ? front.spread.most : [];
  const all = [...front.loss, ...front.equal.map((point) => point.loss), front.filed.loss, ...most];
  const losses = lossAxis(all, [frame.bottom, frame.top], unit);
  const ys = losses.scale;
  const at = (share, loss) => [xs(share), ys(loss)];
  const parts = [
    axes(
      frame,
      { scale: xs, ticks: xs.ticks(5), text: percentTick, label: "share of the full cache" },
      losses,
    ),
  ];
  if (front.spread) parts.push(band(front.spread, at));
  const equal = front.equal.map((point) => at(point.share, point.loss));
  parts.push(svg("path", { class: "equal", d: lineThrough(equal) }));
  parts.push(...equal.map((point) => dot(point, "equal-point", 2.5)));
  const line = front.share.map((share, index) => [share, front.loss[index]]);
  parts.push(svg("path", { class: "front", d: bentLine(line, at) }));
  const budget = svg("path", { class: "budget" });
  const filed = diamond(at(front.filed.share, front.filed.loss), "filed");
  const here = dot([0, 0], "here", 6);
  const element = drawing(width, height, "", ...parts, budget, filed, here);
  return {
    element,
    move(view, hasFiled) {
      const share = view.usedBytes / view.fullBytes;
      const [x, y] = at(share, view.loss);
      const end = xs(Math.min(view.budgetBytes / view.fullBytes, 1));
      budget.setAttribute("d", `M${end} ${frame.top}V${frame.bottom}`);
      here.setAttribute("cx", x);
      here.setAttribute("cy", y);
      filed.setAttribute("visibility", hasFiled ? "visible" : "hidden");
      const shown = `Shown: a loss of ${significant(view.loss)} at ${percent(share)}.`;
      element.setAttribute("aria-label", `Least loss at every share of the full cache. ${shown}`);
    },
  };
}

function band(spread, at) {
  const upper = spread.kept_fraction.map((share, index) => at(share, spread.most[index]));
  const lower = spread.kept_fraction.map((share, index) => at(share, spread.least[index]));
  return svg("path", { class: "band", d: `${lineThrough([...upper, ...lower.reverse()])}Z` });
}

function frontLegend(front, name, hasFiled, source) {
  const line = (kind) => svg("path", { class: kind, d: "M1 7H25" });
  const items = [
    legendItem(source === "file" ? "the plan in the file" : "shown plan", dot([13, 7], "here", 5)),
    legendItem("budget", svg("path", { class: "budget", d: "M13 1V13" })),
    legendItem("least loss: no plan lies below", line("front")),
    legendItem("every cache keeps the same share", line("equal"), dot([13, 7], "equal-point", 2.5)),
  ];
  if (hasFiled) items.splice(1, 0, legendItem(name, diamond([13, 7], "filed", 5)));
  if (front.spread) {
    const swatch = svg("rect", { class: "band", x: 2, y: 2, width: 22, height: 10 });
    items.push(legendItem(`single prompts, least to most of ${front.spread.prompts}`, swatch));
  }
  return items;
}

// The measured levels of one cache, its lower convex hull, and the level it has.
function drawCurve(width, curve, unit) {
  const height = Math.max(250, Math.min(340, width * 0.8));
  const frame = frameOf(width, height);
  const xs = linearScale([0, Math.max(...curve.tokens)], [frame.left, frame.right]);
  const losses = lossAxis(curve.loss, [frame.bottom, frame.top], unit);
  const ys = losses.scale;
  const place = (tokens, loss) => [xs(tokens), ys(loss)];
  const at = (level) => place(curve.tokens[level], curve.loss[level]);
  const corners = curve.hull.map((level) => [curve.tokens[level], curve.loss[level]]);
  const parts = [
    axes(
      frame,
      { scale: xs, ticks: xs.ticks(4), text: (tick) => grouped(tick), label: "tokens kept" },
      losses,
    ),
    svg("path", { class: "front", d: bentLine(corners, place) }),
    ...curve.tokens.map((_, level) => dot(at(level), "level", 2.5)),
    dot(at(curve.level), "here", 6),
  ];
  const label = `Loss of ${curve.name} at each measured level: ${significant(curve.loss[0], 3)} at ${
    curve.tokens[0]
  } tokens. Shown: ${significant(curve.loss[curve.level], 3)} at ${curve.tokens[curve.level]}.`;
  return drawing(width, height, label, ...parts);
}

function curveLegend() {
  return [
    legendItem("what it keeps", dot([13, 7], "here", 5)),
    legendItem("measured level", dot([13, 7], "level", 2.5)),
    legendItem("lower hull", svg("path", { class: "front", d: "M1 7H25" })),
  ];
}

// What plans were predicted to lose, and what they lost.
function drawCheck(width, check) {
  const height = Math.max(260, Math.min(380, width * 0.75));
  const frame = frameOf(width, height);
  const both = check.in_nats ? [...check.predicted, ...check.measured] : null;
  const xs = logScale(logRange(both ?? check.predicted), [frame.left, frame.right]);
  const range = logRange(both ?? check.measured);
  const ys = logScale(range, [frame.bottom, frame.top]);
  const parts = [
    axes(
      frame,
      { scale: xs, ticks: xs.ticks(6), text: tickText, label: "predicted loss" },
      { scale: ys, ticks: ys.ticks(6), text: tickText, label: "measured, nats per token" },
    ),
  ];
  if (check.in_nats) parts.unshift(...factorTwo(xs, ys, range));
  check.predicted.forEach((predicted, plan) => {
    const at = [xs(predicted), ys(check.measured[plan])];
    parts.push(check.is_solved[plan] ? dot(at, "solved", 4.5) : square(at, "random"));
  });
  const label = `Predicted against measured loss of ${check.predicted.length} plans.`;
  return drawing(width, height, label, ...parts);
}

// The line of equal losses, and the band from half to double.
function factorTwo(xs, ys, [low, high]) {
  const points = [
    [low, low / 2], [low, low * 2], [high / 2, high], [high, high], [high, high / 2], [low * 2, low],
  ];
  const corners = points.map(([x, y]) => [xs(x), ys(y)]);
  return [
    svg("path", { class: "band", d: `${lineThrough(corners)}Z` }),
    svg("path", { class: "identity", d: lineThrough([[xs(low), ys(low)], [xs(high), ys(high)]]) }),
  ];
}

function checkLegend(check) {
  const items = [
    legendItem("plans that a solver made", dot([13, 7], "solved", 4.5)),
    legendItem("plans drawn at random", square([13, 7], "random")),
  ];
  if (check.in_nats) {
    const swatch = svg("rect", { class: "band", x: 2, y: 2, width: 22, height: 10 });
    items.push(legendItem("half to double of what was predicted", swatch));
  }
  return items;
}
