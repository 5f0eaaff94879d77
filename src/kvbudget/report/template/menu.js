// The problem of a context and a batch size: which levels each cache may take, and what they cost.
// Arrays over caches and levels are flat: cache * levels + level.

const MOST_BYTES = Number.MAX_SAFE_INTEGER;

// Facts of the caches that do not depend on the context.
function cachesOf(model) {
  const layer = [];
  const head = [];
  model.kv_heads.forEach((heads, at) => {
    for (let each = 0; each < heads; each += 1) {
      layer.push(at);
      head.push(each);
    }
  });
  return { layer, head, count: layer.length, tokenBytes: layer.map((at) => model.token_bytes[at]) };
}

// Most tokens a cache of each layer can need, [layers].
function mostTokens(model, context) {
  return model.windows.map((window) => (window === null ? context : Math.min(context, window)));
}

function bytesOf(model, layerTokens, batch) {
  return layerTokens.reduce(
    (sum, tokens, layer) => sum + tokens * model.kv_heads[layer] * model.token_bytes[layer] * batch,
    0,
  );
}

function fullBytes(model, context, batch) {
  return bytesOf(model, mostTokens(model, context), batch);
}

// Bytes of one token in every cache: what a budget in tokens is counted in.
function bytesPerToken(model, batch) {
  return bytesOf(model, model.windows.map(() => 1), batch);
}

// Tokens of each cache at each level, and the bytes that memory is taken for.
function menuOf(model, caches, curves, rules, context, batch) {
  const levels = curves.keptFraction.length;
  const capacity = new Float64Array(caches.count * levels);
  const cost = new Float64Array(caches.count * levels);
  const most = mostTokens(model, context);
  const page = rules.page_tokens;
  const pages = (tokens) => Math.ceil(tokens / page) * page;
  for (let cache = 0; cache < caches.count; cache += 1) {
    const all = most[caches.layer[cache]];
    for (let level = 0; level < levels; level += 1) {
      const wanted = Math.floor(curves.keptFraction[level] * context + 1e-9);
      const tokens = Math.min(pages(Math.min(Math.max(wanted, 1), all)), all);
      capacity[cache * levels + level] = tokens;
      cost[cache * levels + level] = pages(tokens) * caches.tokenBytes[cache] * batch;
    }
  }
  return { levels, capacity, cost };
}

// Whether the rules let a cache take a level.
function isAllowed(rules, menu, cache, level) {
  const { levels, capacity, cost } = menu;
  const at = cache * levels + level;
  const last = cache * levels + levels - 1;
  if (rules.least_tokens && capacity[at] < Math.min(rules.least_tokens[cache], capacity[last])) {
    return false;
  }
  if (rules.most_tokens && capacity[at] > rules.most_tokens[cache]) return false;
  return !(rules.protected && rules.protected[cache] && cost[at] !== cost[last]);
}

// Worked into the menus: forbidden levels become copies of allowed ones, tied caches one unit.
// Returns null if a unit is left without a level.
function reduce(caches, curves, rules, menu) {
  const { levels, capacity, cost } = menu;
  const group = rules.group ?? caches.layer.map((_, cache) => cache);
  const units = Math.max(...group) + 1;
  const together = new Uint8Array(units * levels).fill(1);
  const measured = Float64Array.from(curves.loss);
  for (let cache = 0; cache < caches.count; cache += 1) {
    for (let level = 0; level < levels; level += 1) {
      if (isAllowed(rules, menu, cache, level)) continue;
      together[group[cache] * levels + level] = 0;
      measured[cache * levels + level] = Infinity;
    }
  }
  const standIn = nearestAllowed(together, units, levels);
  if (standIn === null) return null;
  const loss = new Float64Array(units * levels);
  const unitCost = new Float64Array(units * levels);
  for (let cache = 0; cache < caches.count; cache += 1) {
    for (let level = 0; level < levels; level += 1) {
      const unit = group[cache] * levels;
      const from = cache * levels + standIn[unit + level];
      loss[unit + level] += measured[from];
      unitCost[unit + level] += cost[from];
    }
  }
  fallOnly(loss, units, levels);
  return { units, levels, loss, cost: unitCost, group, standIn, measured, capacity };
}

// For each level the highest allowed one up to it, else the lowest allowed.
function nearestAllowed(allowed, units, levels) {
  const nearest = new Int32Array(units * levels);
  for (let unit = 0; unit < units; unit += 1) {
    const row = unit * levels;
    let found = allowed.subarray(row, row + levels).indexOf(1);
    if (found < 0) return null;
    for (let level = 0; level < levels; level += 1) {
      if (allowed[row + level]) found = level;
      nearest[row + level] = found;
    }
  }
  return nearest;
}

// The least loss up to each level.
function fallOnly(loss, units, levels) {
  for (let unit = 0; unit < units; unit += 1) {
    for (let at = unit * levels + 1; at < (unit + 1) * levels; at += 1) {
      loss[at] = Math.min(loss[at], loss[at - 1]);
    }
  }
}

// Bytes when every unit is at its lowest (0) or highest (levels - 1) level.
function bytesAtLevel(problem, level) {
  let sum = 0;
  for (let unit = 0; unit < problem.units; unit += 1) {
    sum += problem.cost[unit * problem.levels + level];
  }
  return sum;
}
