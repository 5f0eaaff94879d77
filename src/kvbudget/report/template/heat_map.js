// Tokens that each cache keeps: layers from left to right, KV heads from top to bottom.

const MAP_MARGIN = { left: 44, top: 6, bottom: 40 };
const LEAST_FOR_NUMBERS = 30;

// A map that shows numbers of tokens; `pick` hears of the cache that was chosen.
function heatMap(host, caches, pick) {
  const layers = Math.max(...caches.layer) + 1;
  const heads = Math.max(...caches.head) + 1;
  const indexOf = new Map();
  caches.layer.forEach((layer, cache) => indexOf.set(`${layer},${caches.head[cache]}`, cache));
  let cells = [];
  let numbers = [];
  let ring = null;
  let inner = null;
  let shown = null;
  let chosen = 0;

  function build(width) {
    const room = width - MAP_MARGIN.left - 2;
    const cellWidth = Math.min(room / layers, 110);
    const cellHeight = Math.max(Math.min(34, 420 / heads), 54 / heads, heads > 64 ? 4 : 9);
    const height = MAP_MARGIN.top + cellHeight * heads + MAP_MARGIN.bottom;
    const gap = Math.min(1.5, cellWidth / 6, cellHeight / 6);
    const place = (cache) => ({
      x: MAP_MARGIN.left + caches.layer[cache] * cellWidth,
      y: MAP_MARGIN.top + caches.head[cache] * cellHeight,
      width: cellWidth,
      height: cellHeight,
    });
    cells = caches.layer.map((_, cache) =>
      svg("rect", { ...place(cache), "data-cache": cache, "stroke-width": gap }),
    );
    const hasNumbers = cellWidth >= LEAST_FOR_NUMBERS && cellHeight >= 16;
    numbers = hasNumbers ? cells.map((_, cache) => centred(place(cache), cache)) : [];
    ring = svg("rect", { class: "chosen", width: cellWidth, height: cellHeight });
    const within = [cellWidth, cellHeight].map((size) => Math.max(size - 4, 0));
    inner = svg("rect", { class: "inner", width: within[0], height: within[1] });
    const all = svg("svg", {
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: "application",
      tabindex: 0,
      "aria-roledescription": "map",
    });
    all.append(...cells, ...numbers, ...marks(layers, heads, cellWidth, cellHeight), ring, inner);
    all.addEventListener("keydown", onKey);
    all.addEventListener("click", (event) => choose(cacheAt(event)));
    all.addEventListener("mousemove", (event) => hover(cacheAt(event)));
    all.addEventListener("mouseleave", () => hover(null));
    const focused = host.contains(document.activeElement);
    host.replaceChildren(all);
    if (focused) all.focus();
  }

  function centred(place, cache) {
    const x = place.x + place.width / 2;
    const y = place.y + place.height / 2 + 4;
    return svg("text", { x, y, "text-anchor": "middle", "data-cache": cache });
  }

  function cacheAt(event) {
    const cache = event.target.getAttribute("data-cache");
    return cache === null ? null : Number(cache);
  }

  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function onKey(event) {
    const step = steps[event.key];
    if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const to = `${caches.layer[chosen] + step[0]},${caches.head[chosen] + step[1]}`;
    choose(indexOf.get(to) ?? null);
  }

  function choose(cache) {
    if (cache !== null) pick(cache);
  }

  function hover(cache) {
    if (shown) shown.describe(cache ?? chosen);
  }

  return {
    build(width) {
      build(width);
      if (shown) this.show(shown);
    },
    // `what`: tokens of each cache, the context, and what to do when one is pointed at
    show(what) {
      shown = what;
      cells.forEach((cell, cache) => {
        const shade = shadeOf(what.tokens[cache] / what.context);
        if (cell.getAttribute("fill") !== shade) cell.setAttribute("fill", shade);
      });
      numbers.forEach((text, cache) => {
        text.textContent = shortCount(what.tokens[cache]);
        text.style.fill = inkOn(what.tokens[cache] / what.context);
      });
      host.firstChild.setAttribute("aria-label", what.label);
      this.mark(chosen);
    },
    mark(cache) {
      chosen = cache;
      const cell = cells[cache];
      for (const [box, inset] of [[ring, 0], [inner, 2]]) {
        box.setAttribute("x", Number(cell.getAttribute("x")) + inset);
        box.setAttribute("y", Number(cell.getAttribute("y")) + inset);
      }
      if (shown) shown.describe(cache);
    },
  };
}

// Numbers along the edges, as many as there is room for.
function marks(layers, heads, cellWidth, cellHeight) {
  const { left, top } = MAP_MARGIN;
  const bottom = top + heads * cellHeight;
  const every = (count, size, least) =>
    [1, 2, 4, 5, 8, 10, 16, 20, 32, 64].find((step) => step * size >= least) ?? count;
  const parts = [];
  for (let layer = 0; layer < layers; layer += every(layers, cellWidth, 22)) {
    const x = left + (layer + 0.5) * cellWidth;
    parts.push(svg("text", { x, y: bottom + 16, "text-anchor": "middle" }, String(layer)));
  }
  for (let head = 0; head < heads; head += every(heads, cellHeight, 14)) {
    const y = top + (head + 0.5) * cellHeight + 4;
    parts.push(svg("text", { x: left - 7, y, "text-anchor": "end" }, String(head)));
  }
  const under = { x: left, y: bottom + 34 };
  parts.push(svg("text", under, "layer"));
  const beside = { x: 12, y: top + (heads * cellHeight) / 2, "text-anchor": "middle" };
  parts.push(svg("text", { ...beside, transform: `rotate(-90 ${beside.x} ${beside.y})` }, "KV head"));
  return parts;
}

// A count in five letters at most.
function shortCount(tokens) {
  if (tokens < 10000) return String(tokens);
  return tokens < 1e6 ? `${Math.round(tokens / 100) / 10}k`.replace(/^(\d{3})\.\d/, "$1") : `${Math.round(tokens / 1e5) / 10}M`;
}

// The shades from nothing to everything.
function shadeScale(context) {
  const width = 300;
  const shares = Array.from({ length: 60 }, (_, at) => (at / 59) ** 2);
  const stripe = (share, at) =>
    svg("rect", { x: (at * width) / 60, y: 0, width: width / 60 + 0.5, height: 10, fill: shadeOf(share) });
  const tick = (share) =>
    svg("text", { x: Math.sqrt(share) * width, y: 26, "text-anchor": share < 1 ? "middle" : "end" }, percentTick(share));
  const size = { viewBox: `-8 0 ${width + 16} 30`, width: width + 16, height: 30 };
  const ticks = [0.01, 0.1, 0.25, 0.5, 1].map(tick);
  return [svg("svg", size, ...shares.map(stripe), ...ticks), `of ${grouped(context)} tokens`];
}
