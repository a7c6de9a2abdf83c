"use strict";
// Filters and sorts the rows that are there; without it the page is only longer.
(() => {
  const body = document.querySelector("table.targets tbody");
  const rows = [...body.rows];
  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const tallies = [...document.querySelectorAll("[data-verdict][aria-pressed]")];
  const heads = [...document.querySelectorAll("th button[data-sort]")];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = tallies.filter((t) => t.getAttribute("aria-pressed") === "true").map((t) => t.dataset.verdict);
    let count = 0;
    for (const row of rows) {
      const fits = (!wanted.length || wanted.includes(row.dataset.verdict)) && words.every((w) => texts.get(row).includes(w));
      row.hidden = !fits;
      if (fits) count += 1;
    }
    shown.textContent = count === rows.length ? `${count} targets` : `${count} of ${rows.length} targets`;
  };
  filter.addEventListener("input", apply);
  for (const tally of tallies) {
    tally.addEventListener("click", () => {
      tally.setAttribute("aria-pressed", String(tally.getAttribute("aria-pressed") !== "true"));
      apply();
    });
  }
  for (const head of heads) {
    head.addEventListener("click", () => {
      const cell = head.closest("th");
      const column = cell.cellIndex;
      // The worst and the longest are what one looks for first.
      const first = head.dataset.sort === "text" ? "ascending" : "descending";
      const now = cell.getAttribute("aria-sort");
      const other = first === "ascending" ? "descending" : "ascending";
      const order = now === first ? other : first;
      for (const each of heads) each.closest("th").setAttribute("aria-sort", "none");
      cell.setAttribute("aria-sort", order);
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const sign = order === "ascending" ? 1 : -1;
      const by = head.dataset.sort === "text" ? (a, b) => a.localeCompare(b) : (a, b) => Number(a) - Number(b);
      const keyed = rows.map((row, n) => [value(row), n, row]);
      keyed.sort((a, b) => sign * by(a[0], b[0]) || a[1] - b[1]);
      body.append(...keyed.map((k) => k[2]));
    });
  }
})();
