"use strict";
const table = document.querySelector("table"), body = table.tBodies[0], rows = [...body.rows];
const shown = document.getElementById("shown"), filters = [...document.querySelectorAll(".filter button")];

function value(row, place) {
  const text = row.cells[place].dataset.value, number = Number(text);
  return text !== "" && !Number.isNaN(number) ? number : text;
}

function sort(heading) {
  const place = heading.cellIndex, rising = heading.getAttribute("aria-sort") !== "ascending";
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
  rows.sort((one, two) => {
    const [a, b] = [value(one, place), value(two, place)];
    if (a === "" || b === "") return (a === "") - (b === "");  // what is unknown comes last either way
    return (rising ? 1 : -1) * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  });
  body.append(...rows);
}

function filter(button) {
  for (const each of filters) each.setAttribute("aria-pressed", each === button);
  const wanted = button.dataset.kind;
  for (const row of rows) row.hidden = wanted !== "" && !row.dataset.kinds.split(" ").includes(wanted);
  shown.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} files are shown`;
}

for (const button of table.tHead.querySelectorAll("button")) button.addEventListener("click", () => sort(button.parentElement));
for (const button of filters) button.addEventListener("click", () => filter(button));
