"use strict";
// Tables of class "sortable" sort by their headings: numbers as numbers (data-v, or the text), what is missing last.
(function () {
  function value(row, column) {
    const cell = row.cells[column], text = "v" in cell.dataset ? cell.dataset.v : cell.textContent.trim();
    if (text === "" || text === "—" || text === "None") return null;
    const number = Number(text.replace(/,/g, ""));
    return Number.isNaN(number) ? text.toLowerCase() : number;
  }
  function compare(a, b) {
    if (a === null || b === null) return a === b ? 0 : a === null ? 2 : -2;
    if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
    return typeof a === "number" ? -1 : 1;
  }
  function sort(table, column, descending) {
    const body = table.tBodies[0], rows = Array.from(body.rows);
    rows.sort(function (x, y) {
      const order = compare(value(x, column), value(y, column));
      return Math.abs(order) === 2 ? order : descending ? -order : order;
    });
    body.append.apply(body, rows);
    Array.from(table.tHead.rows[0].cells).forEach(function (head, number) {
      if (number === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    Array.from(table.tHead.rows[0].cells).forEach(function (head, column) {
      const button = document.createElement("button");
      button.type = "button";
      button.append.apply(button, Array.from(head.childNodes));
      head.append(button);
      button.addEventListener("click", function () {
        const descending = head.getAttribute("aria-sort") === "ascending";
        sort(table, column, descending);
        document.dispatchEvent(new CustomEvent("sorted", { detail: { table: table.id, column: column, descending: descending } }));
      });
    });
  });
  window.sortTable = sort;
})();
