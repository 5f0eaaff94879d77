// Lower convex hulls of loss over bytes, and the steps from corner to corner, best first.

const FEW = 8;

// The levels that lose less than every cheaper one and no more than any of equal cost.
function usefulLevels(problem) {
  const { units, levels, loss, cost } = problem;
  const useful = [];
  for (let unit = 0; unit < units; unit += 1) {
    const row = unit * levels;
    let last = row + levels - 1;
    const kept = [];
    for (let at = row + levels - 1; at >= row; at -= 1) {
      if (at === row + levels - 1 || cost[at + 1] !== cost[at]) last = at;
      const better = at === row || loss[at] < loss[at - 1];
      if (better && loss[at] === loss[last]) kept.push(at);
    }
    useful.push(...kept.reverse());
  }
  return useful;
}

// The corners of all hulls, as places in the flat arrays, unit by unit.
function lowerHull(problem) {
  const { levels, loss, cost } = problem;
  const unitOf = (at) => Math.floor(at / levels);
  let points = usefulLevels(problem);
  let bent;
  for (;;) {
    const slope = (at) =>
      at >= 0 && at + 1 < points.length && unitOf(points[at]) === unitOf(points[at + 1])
        ? (loss[points[at + 1]] - loss[points[at]]) / (cost[points[at + 1]] - cost[points[at]])
        : NaN;
    const slopes = points.map((_, at) => slope(at));
    const isBump = points.map((_, at) => at > 0 && slopes[at - 1] >= slopes[at]);
    bent = new Set(points.filter((_, at) => isBump[at]).map(unitOf));
    const before = points.length;
    points = points.filter((_, at) => !isBump[at]);
    if ((before - points.length) * FEW <= points.length) break;
  }
  const corners = points.filter((at) => !bent.has(unitOf(at)));
  for (const unit of bent) {
    corners.push(...chain(points.filter((at) => unitOf(at) === unit), loss, cost));
  }
  return corners.sort((one, other) => one - other);
}

// Andrew's monotone chain over the points of one unit.
function chain(points, loss, cost) {
  const corners = [points[0]];
  const slopes = [-Infinity];
  for (const point of points.slice(1)) {
    for (;;) {
      const corner = corners[corners.length - 1];
      const slope = (loss[point] - loss[corner]) / (cost[point] - cost[corner]);
      if (slope > slopes[slopes.length - 1]) {
        corners.push(point);
        slopes.push(slope);
        break;
      }
      corners.pop();
      slopes.pop();
    }
  }
  return corners;
}

// The first corner of each unit, and every step from there in the order of its worth.
function segmentsOf(problem) {
  const { units, levels, loss, cost } = problem;
  const corners = lowerHull(problem);
  const first = new Int32Array(units).fill(-1);
  const steps = [];
  corners.forEach((corner, index) => {
    const unit = Math.floor(corner / levels);
    const level = corner % levels;
    if (first[unit] < 0) {
      first[unit] = level;
      return;
    }
    const before = corners[index - 1];
    const bytes = cost[corner] - cost[before];
    const removed = loss[before] - loss[corner];
    steps.push({ unit, level, bytes, removed, worth: removed / bytes, order: steps.length });
  });
  steps.sort((one, other) => other.worth - one.worth || one.order - other.order);
  return { first, steps };
}

// Every breakpoint of the frontier: bytes, and the least loss within so many.
function frontierOf(problem, segments) {
  const count = segments.steps.length + 1;
  const bytes = new Float64Array(count);
  const loss = new Float64Array(count);
  bytes[0] = bytesAtLevel(problem, 0);
  segments.steps.forEach((step, at) => {
    bytes[at + 1] = bytes[at] + step.bytes;
  });
  const { units, levels } = problem;
  const least = Array.from({ length: units }, (_, unit) => problem.loss[(unit + 1) * levels - 1]);
  loss[count - 1] = fsum(least);
  for (let at = count - 2; at >= 0; at -= 1) {
    loss[at] = loss[at + 1] + segments.steps[at].removed;
  }
  return { bytes, loss };
}
