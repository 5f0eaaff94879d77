// Elements, shades and scales.

const SVG = "http://www.w3.org/2000/svg";
// the colour map cividis: lightness rises steadily, and the colour-blind see the same order
const SHADES = (
  "00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7d7c78 " +
  "8c8878 9b9476 aba072 bcae6c cdbb63 dec958 f0d846 fee838"
).split(" ");

const byId = (id) => document.getElementById(id);

function svg(name, attributes = {}, ...children) {
  return withAll(document.createElementNS(SVG, name), attributes, children);
}

function html(name, attributes = {}, ...children) {
  return withAll(document.createElement(name), attributes, children);
}

function withAll(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// A drawing as wide as its place, with words for those who do not see it.
function drawing(width, height, label, ...children) {
  const size = { viewBox: `0 0 ${width} ${height}`, width, height };
  return svg("svg", { ...size, role: "img", "aria-label": label }, ...children);
}

// The shade of a kept share: dark for little, and by its root, so that small shares differ.
function shadeOf(share) {
  const place = Math.sqrt(Math.min(Math.max(share, 0), 1)) * (SHADES.length - 1);
  const below = Math.min(Math.floor(place), SHADES.length - 2);
  const part = place - below;
  const channel = (shade, at) => parseInt(shade.slice(at, at + 2), 16);
  const mixed = [0, 2, 4].map((at) => {
    const from = channel(SHADES[below], at);
    return Math.round(from + part * (channel(SHADES[below + 1], at) - from));
  });
  return `rgb(${mixed.join(",")})`;
}

// Black or white, whichever is easier to read on the shade of a share.
function inkOn(share) {
  return Math.sqrt(share) > 0.48 ? "#000" : "#fff";
}

function linearScale([low, high], [from, to]) {
  const scale = (value) => from + ((value - low) / (high - low || 1)) * (to - from);
  scale.ticks = (count) => {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
    const first = Math.ceil(low / step - 1e-9);
    const last = Math.floor(high / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, at) => (first + at) * step);
  };
  return scale;
}

const ZERO_GAP = 26;

// Logarithmic. With a place for zero that lies `ZERO_GAP` beyond the lowest value, and what is
// between the two lies between them; without one it lies on the edge.
function logScale([low, high], [zero, to], hasZero = false) {
  const from = zero + (hasZero ? Math.sign(to - zero) * ZERO_GAP : 0);
  const inner = linearScale([Math.log10(low), Math.log10(high)], [from, to]);
  const below = linearScale([0, low], [zero, from]);
  const scale = (value) => (value < low ? below(Math.max(value, 0)) : inner(Math.log10(value)));
  scale.ticks = (count) => logTicks(low, high, count);
  return scale;
}

// Powers of ten, or, where fewer than two lie in the range, rounder steps; never fewer than two.
function logTicks(low, high, count) {
  const first = Math.ceil(Math.log10(low) - 1e-9);
  const last = Math.floor(Math.log10(high) + 1e-9);
  const step = Math.max(1, Math.ceil((last - first + 1) / count));
  const powers = [];
  for (let power = last; power >= first; power -= step) powers.push(10 ** power);
  if (powers.length > 1) return powers;
  const parts = [first - 1, first].flatMap((power) => [1, 2, 5].map((each) => each * 10 ** power));
  const inside = parts.filter((each) => each >= low && each <= high);
  if (inside.length > 1) return inside;
  const even = linearScale([low, high], [0, 1]);
  return [3, 4, 6, 12].map((each) => even.ticks(each)).find((ticks) => ticks.length > 1);
}

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

// A power of ten as such, and any other number as short as it goes.
function tickText(value) {
  if (value > 0 && Math.abs(Math.log10(value) % 1) < 1e-9) return powerText(value);
  const short = Number(value.toPrecision(3));
  return short === 0 || (short >= 0.001 && short < 10000) ? String(short) : short.toExponential();
}

function powerText(value) {
  const power = Math.round(Math.log10(value));
  if (power >= -3 && power <= 3) return String(Number(value.toPrecision(1)));
  const digits = [...String(Math.abs(power))].map((digit) => SUPERSCRIPTS[digit]).join("");
  return `10${power < 0 ? "⁻" : ""}${digits}`;
}

// Axes with their labels. `hasZero` says that the foot of a logarithmic axis stands for zero.
function axes(frame, x, y) {
  const { left, right, top, bottom } = frame;
  const group = svg("g");
  const foot = y.hasZero ? brokenFoot(left, bottom) : `V${bottom}`;
  group.append(svg("path", { class: "axis", d: `M${left} ${top}${foot}H${right}` }));
  for (const tick of x.ticks) {
    const at = x.scale(tick);
    group.append(svg("path", { class: "axis", d: `M${at} ${bottom}v5` }));
    const middle = { x: at, y: bottom + 19, "text-anchor": "middle" };
    group.append(svg("text", middle, x.text(tick)));
  }
  for (const tick of y.ticks) {
    const at = y.scale(tick);
    group.append(svg("path", { class: "axis", d: `M${left - 5} ${at}H${right}`, opacity: 0.55 }));
    group.append(svg("text", { x: left - 9, y: at + 4, "text-anchor": "end" }, y.text(tick)));
  }
  if (y.hasZero) {
    group.append(svg("text", { x: left - 9, y: bottom + 4, "text-anchor": "end" }, "0"));
  }
  group.append(svg("text", { x: right, y: bottom + 37, "text-anchor": "end" }, x.label));
  group.append(svg("text", { x: left - 50, y: top - 12 }, y.label));
  return group;
}

// An axis that ends in two strokes, and goes on below them.
function brokenFoot(left, bottom) {
  const stroke = (height) => `M${left - 5} ${bottom - height + 3}l10 -6`;
  return `V${bottom - 15}${stroke(15)}${stroke(9)}M${left} ${bottom - 9}V${bottom}`;
}

function lineThrough(points) {
  return points.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

// Straight in losses, and therefore bent on a logarithmic axis; `at` places a point.
function bentLine(points, at) {
  const places = [at(...points[0])];
  let last = points[0];
  points.slice(1).forEach((point, index) => {
    const [end] = at(...point);
    const wide = end - places[places.length - 1][0];
    // of points that lie on the same pixel one is enough
    if (wide < 1 && index < points.length - 2) return;
    const pieces = Math.max(1, Math.ceil(wide / 2));
    for (let piece = 1; piece <= pieces; piece += 1) {
      const rest = 1 - piece / pieces;
      places.push(at(...point.map((value, axis) => value + (last[axis] - value) * rest)));
    }
    last = point;
  });
  return lineThrough(places);
}

// A legend's entry: a small drawing, and what it stands for.
function legendItem(text, ...shapes) {
  const size = { viewBox: "0 0 26 14", width: 26, height: 14, "aria-hidden": "true" };
  return html("li", {}, svg("svg", size, ...shapes), text);
}

function showLegend(id, items) {
  byId(id).replaceChildren(...items);
}

// The least and the greatest of what can stand on a logarithmic axis, with room around.
function logRange(values, decades = 8) {
  const shown = values.filter((value) => value > 0 && Number.isFinite(value));
  if (shown.length === 0) return [0.1, 1];
  const high = shown.reduce((most, value) => Math.max(most, value));
  const low = shown.reduce((least, value) => Math.min(least, value));
  return [Math.max(low / 1.5, high / 10 ** decades), high * 1.5];
}
