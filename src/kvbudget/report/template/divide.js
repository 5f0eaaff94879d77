// The division of a budget: buy the steps that fit, spend what is left, prove a bound.

const SAFETY = 1e-14;
const MOST_PRICE = 1e280;
const ROUNDING = 2 ** -51;
const CLOSED = 1e-12;
const LEAST_MISSES = 64;
const UNITS_PER_MISS = 16;

// The plan for a budget, or null if nothing fits it.
function divide(problem, segments, budget) {
  const floor = bytesAtLevel(problem, 0);
  if (budget < floor) return null;
  const relaxed = relax(problem, segments, budget, floor);
  const filled = fill(problem, relaxed.levels, budget);
  const chosen = highestIfFree(problem, filled, budget);
  return solutionOf(problem, chosen, relaxed.bound, budget);
}

// The optimum of the problem in which units may mix levels, rounded down.
function relax(problem, segments, budget, floor) {
  const { levels } = problem;
  const left = Math.min(budget, bytesAtLevel(problem, levels - 1)) - floor;
  const chosen = Int32Array.from(segments.first);
  let spent = 0;
  let price = 0;
  for (const step of segments.steps) {
    spent += step.bytes;
    if (spent > left) {
      price = Math.min(step.worth, MOST_PRICE);
      break;
    }
    chosen[step.unit] = Math.max(chosen[step.unit], step.level);
  }
  return { levels: chosen, bound: boundAt(problem, price, chosen, budget) };
}

// A loss that no plan can beat: who pays the price for each byte can do no better.
function boundAt(problem, price, chosen, budget) {
  const { units, levels, loss, cost } = problem;
  const terms = [];
  const saved = [];
  const least = [];
  for (let unit = 0; unit < units; unit += 1) {
    const row = unit * levels;
    const at = row + chosen[unit];
    let best = 0;
    for (let other = row; other < row + levels; other += 1) {
      const extra = loss[other] - loss[at];
      const paid = price * (cost[other] - cost[at]);
      best = Math.min(best, extra + paid - ROUNDING * (Math.abs(extra) + Math.abs(paid)));
    }
    terms.push(loss[at]);
    saved.push(best);
    least.push(loss[row + levels - 1]);
  }
  const all = [...terms, ...saved, -price * (budget - usedBytes(problem, chosen))];
  const bound = fsum(all) - SAFETY * fsum(all.map(Math.abs));
  return Math.max(bound, fsum(least) - SAFETY * fsum(least.map(Math.abs)));
}

function usedBytes(problem, chosen) {
  return chosen.reduce((sum, level, unit) => sum + problem.cost[unit * problem.levels + level], 0);
}

// Spend what is left, always on the step that removes most loss per byte.
function fill(problem, start, budget) {
  const { units, levels, loss, cost } = problem;
  const chosen = trim(problem, start);
  const everything = bytesAtLevel(problem, levels - 1);
  let left = Math.min(budget, everything) - usedBytes(problem, chosen);
  const cheapest = Float64Array.from(chosen, (level, unit) => cheapestStep(problem, unit, level));
  const all = () => {
    const offers = [];
    for (let unit = 0; unit < units; unit += 1) {
      if (cheapest[unit] > left) continue;
      const offer = bestOffer(problem, unit, chosen[unit], left);
      if (offer) offers.push(offer);
    }
    return heapOf(offers);
  };
  let offers = all();
  let misses = 0;
  const patience = LEAST_MISSES + Math.floor(units / UNITS_PER_MISS);
  while (offers.length > 0) {
    const { unit, level } = popOffer(offers);
    const row = unit * levels;
    const price = cost[row + level] - cost[row + chosen[unit]];
    if (price <= left) {
      left -= price;
      chosen[unit] = level;
      cheapest[unit] = 0;
    } else {
      misses += 1;
    }
    if (misses > patience) {
      offers = all();
      misses = 0;
    } else if (cheapest[unit] <= left) {
      const offer = bestOffer(problem, unit, chosen[unit], left);
      if (offer) pushOffer(offers, offer);
    }
  }
  return chosen;
}

// Each unit's lowest level that loses no more.
function trim(problem, chosen) {
  const { levels, loss } = problem;
  return chosen.map((level, unit) => {
    const row = unit * levels;
    let lowest = 0;
    while (loss[row + lowest] > loss[row + level]) lowest += 1;
    return lowest;
  });
}

// Bytes to the next level that loses less; infinite if there is none.
function cheapestStep(problem, unit, level) {
  const { levels, loss, cost } = problem;
  const row = unit * levels;
  for (let at = row; at < row + levels; at += 1) {
    if (loss[at] < loss[row + level]) return cost[at] - cost[row + level];
  }
  return Infinity;
}

// The step of a unit that removes most loss per byte among those that fit.
function bestOffer(problem, unit, from, left) {
  const { levels, loss, cost } = problem;
  const row = unit * levels;
  let best = null;
  for (let level = 0; level < levels; level += 1) {
    const price = cost[row + level] - cost[row + from];
    const gain = loss[row + from] - loss[row + level];
    if (!(gain > 0) || price > left) continue;
    const worth = price > 0 ? gain / price : Infinity;
    if (worth > 0 && (best === null || worth > best.worth)) best = { worth, unit, level };
  }
  return best;
}

function comesFirst(one, other) {
  if (one.worth !== other.worth) return one.worth > other.worth;
  return one.unit !== other.unit ? one.unit < other.unit : one.level < other.level;
}

// A binary heap with the best offer first.
function heapOf(offers) {
  const heap = [];
  offers.forEach((offer) => pushOffer(heap, offer));
  return heap;
}

function pushOffer(heap, offer) {
  let at = heap.length;
  heap.push(offer);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!comesFirst(offer, heap[parent])) break;
    heap[at] = heap[parent];
    at = parent;
  }
  heap[at] = offer;
}

function popOffer(heap) {
  const best = heap[0];
  const moved = heap.pop();
  if (heap.length === 0) return best;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && comesFirst(heap[child + 1], heap[child])) child += 1;
    if (!comesFirst(heap[child], moved)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = moved;
  return best;
}

// Where memory is free nothing is evicted, though it was measured to lose nothing.
function highestIfFree(problem, chosen, budget) {
  const { levels, loss } = problem;
  if (bytesAtLevel(problem, levels - 1) > budget) return chosen;
  const highest = chosen.map(() => levels - 1);
  const total = (each) => fsum(Array.from(each, (level, unit) => loss[unit * levels + level]));
  return total(highest) <= total(chosen) ? highest : chosen;
}

// Levels and tokens of every cache, with what is proven about them.
function solutionOf(problem, chosen, proven, budget) {
  const { levels, group, standIn, measured, capacity } = problem;
  const level = group.map((unit) => standIn[unit * levels + chosen[unit]]);
  const places = level.map((at, cache) => cache * levels + at);
  const loss = fsum(places.map((place) => measured[place]));
  const scale = Math.max(Math.abs(loss), Math.abs(proven));
  const gap = loss - proven <= CLOSED * scale ? 0 : (loss - proven) / scale;
  return {
    level,
    tokens: places.map((place) => capacity[place]),
    lossOfCache: places.map((place) => measured[place]),
    loss,
    gap,
    bound: gap === 0 ? loss : proven,
    status: gap === 0 ? "OPTIMAL" : "FEASIBLE",
    usedBytes: usedBytes(problem, chosen),
    budgetBytes: budget,
  };
}
