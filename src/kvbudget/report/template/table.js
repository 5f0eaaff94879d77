// All caches in rows that can be sorted.

const ROWS_AT_FIRST = 60;

// `columns`: title, value(view, cache), text(view, cache); `pick` hears of the row that was chosen.
function cacheTable(host, more, columns, count, pick) {
  let sorted = { column: 0, falling: false };
  let limit = Math.min(count, ROWS_AT_FIRST);
  let view = null;
  let chosen = 0;
  const heads = columns.map((column, at) => {
    const button = html("button", { type: "button" }, column.title);
    button.addEventListener("click", () => sortBy(at));
    return html("th", { scope: "col" }, button);
  });
  const body = html("tbody");
  const rows = [];
  host.replaceChildren(html("thead", {}, html("tr", {}, ...heads)), body);
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) pick(Number(row.dataset.cache));
  });
  more.addEventListener("click", () => {
    limit = count;
    fill();
  });

  function sortBy(column) {
    const falling = column === sorted.column ? !sorted.falling : column > 1;
    sorted = { column, falling };
    fill();
  }

  function grow() {
    while (rows.length < limit) {
      const cells = columns.map(() => html("td"));
      rows.push({ row: html("tr", {}, ...cells), cells });
    }
    if (body.childElementCount !== limit) {
      body.replaceChildren(...rows.slice(0, limit).map((each) => each.row));
    }
  }

  function fill() {
    grow();
    const { column, falling } = sorted;
    const value = Array.from({ length: count }, (_, cache) => columns[column].value(view, cache));
    const order = value.map((_, cache) => cache);
    const sign = falling ? -1 : 1;
    order.sort((one, other) => sign * (value[one] - value[other]) || one - other);
    rows.slice(0, limit).forEach(({ row, cells }, at) => {
      const cache = order[at];
      row.dataset.cache = cache;
      row.setAttribute("aria-current", cache === chosen);
      columns.forEach((each, index) => {
        const text = each.text(view, cache);
        if (cells[index].textContent !== text) cells[index].textContent = text;
      });
    });
    heads.forEach((head, at) => {
      const way = falling ? "descending" : "ascending";
      head.setAttribute("aria-sort", at === column ? way : "none");
      const arrow = at === column ? (falling ? " ▾" : " ▴") : "";
      head.firstChild.textContent = columns[at].title + arrow;
    });
    more.hidden = limit === count;
    more.textContent = `Show all ${grouped(count)} caches`;
  }

  return {
    show(next) {
      view = next;
      fill();
    },
    mark(cache) {
      chosen = cache;
      rows.forEach(({ row }) => {
        row.setAttribute("aria-current", Number(row.dataset.cache) === cache);
      });
    },
  };
}
