"use strict";
// a click on a head sorts by its column: numbers by their value, what is unknown always last
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = head.closest("table").tBodies[0];
    const rising = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.children) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const key = (row) => {
      const cell = row.cells[head.cellIndex];
      if (head.dataset.kind === "text") return cell.textContent;
      return "value" in cell.dataset ? Number(cell.dataset.value) : null;
    };
    const order = (one, other) => {
      const a = key(one), b = key(other);
      if (a === null || b === null) return (a === null) - (b === null);
      const found = typeof a === "string" ? a.localeCompare(b) : a - b;
      return rising ? found : -found;
    };
    body.append(...[...body.rows].sort(order));
  });
}
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
