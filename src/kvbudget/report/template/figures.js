// What stands in figures and words: the plan as a whole, one cache, the columns of the table.

function say(id, text) {
  byId(id).textContent = text;
}

function drawFigures(report, view, equal) {
  say("used", formatBytes(view.usedBytes));
  say("used-note", usedText(view));
  say("loss", significant(view.loss));
  const notes = [report.unit, comparedText(report, view, equal), report.check ? "" : "never checked"];
  say("loss-note", notes.filter(Boolean).join("; "));
  say("bound", significant(view.bound));
  say("bound-note", "no plan within the budget can lose less");
  const isBest = view.status === "OPTIMAL";
  say("gap", isBest ? "0 %" : percent(view.gap, 2));
  say("gap-note", isBest ? "optimal: no better plan exists" : "of the loss, at most, a better plan could save");
  const least = view.tokens.reduce((one, other) => Math.min(one, other));
  const most = view.tokens.reduce((one, other) => Math.max(one, other));
  const mean = view.tokens.reduce((sum, each) => sum + each, 0) / view.tokens.length;
  say("tokens", mean < 1000 ? significant(mean) : grouped(Math.round(mean)));
  say("tokens-note", `on average; ${grouped(least)} to ${grouped(most)} of ${grouped(view.context)}`);
}

function usedText(view) {
  const left = view.budgetBytes - view.usedBytes;
  const rest = left > 0 ? ` (${formatBytes(left)} left)` : "";
  const share = percent(view.usedBytes / view.fullBytes);
  const full = formatBytes(view.fullBytes);
  return `of a budget of ${formatBytes(view.budgetBytes)}${rest}; ${share} of the full cache, ${full}`;
}

// How much more is lost where every cache keeps the same share, as far as the rules let it.
function comparedText(report, view, equal) {
  const most = equal.findLast((each) => each.bytes <= view.budgetBytes);
  if (most === undefined) return "";
  const share = percent(report.curves.keptFraction[most.level]);
  const ruled = hasRules(report.rules) ? " where the constraints let it" : "";
  const times = significant(most.loss / view.loss, 3);
  const compared = times === "1" ? "as much" : `${times} times as much`;
  const more = view.loss > 0 ? `, ${compared}` : "";
  return `every cache keeping ${share}${ruled}: ${significant(most.loss, 3)}${more}`;
}

function hasRules(rules) {
  const { page_tokens: page, least_tokens, most_tokens, protected: kept } = rules;
  return page > 1 || [least_tokens, most_tokens, kept].some((each) => each !== null);
}

function mapLabel(view) {
  const least = view.tokens.reduce((one, other) => Math.min(one, other));
  const most = view.tokens.reduce((one, other) => Math.max(one, other));
  return `Tokens kept by ${view.tokens.length} caches, layers by KV heads: ${least} to ${most} of ${
    view.context
  }. Arrow keys move from cache to cache; the table below holds the same numbers.`;
}

const nameOf = (caches, cache) => `layer ${caches.layer[cache]}, KV head ${caches.head[cache]}`;
const bytesOfCache = (caches, view, cache) => view.tokens[cache] * caches.tokenBytes[cache] * view.batch;

function describe(report, view, cache) {
  const share = percent(view.tokens[cache] / view.context);
  const loss = view.lossOfCache ? `, loss ${significant(view.lossOfCache[cache], 3)}` : "";
  const kept = `${grouped(view.tokens[cache])} tokens (${share}), ${formatBytes(bytesOfCache(report.caches, view, cache))}`;
  const name = nameOf(report.caches, cache);
  say("cell", `${name[0].toUpperCase()}${name.slice(1)}: keeps ${kept}${loss}.`);
}

function columnsOf(report) {
  const { layer, head } = report.caches;
  const columns = [
    { title: "Layer", value: (_, cache) => layer[cache] },
    { title: "KV head", value: (_, cache) => head[cache] },
    { title: "Tokens kept", value: (view, cache) => view.tokens[cache], show: grouped },
    { title: "Share", value: (view, cache) => view.tokens[cache] / view.context, show: percent },
    { title: "Memory", value: (view, cache) => bytesOfCache(report.caches, view, cache), show: formatBytes },
  ];
  if (report.curves) {
    const levels = report.curves.keptFraction.length;
    const short = (loss) => significant(loss, 3);
    columns.push(
      { title: "Loss now", value: (view, cache) => view.lossOfCache[cache], show: short },
      { title: "Loss at lowest level", value: (_, cache) => report.curves.loss[cache * levels], show: short },
    );
  }
  columns.forEach((column) => {
    const show = column.show ?? String;
    column.text = (view, cache) => show(column.value(view, cache));
  });
  return columns;
}
