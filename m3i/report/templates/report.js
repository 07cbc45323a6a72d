// Sorting and filtering of tables, opening of texts for print, and nothing else. The page is complete without it. Texts are moved and compared, never parsed.
"use strict";
const valueOf = (item, column) => {
  const cell = (item.rows ? item.rows[0] : item).cells[column];
  const text = (cell.dataset.value ?? cell.textContent).trim();
  return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
};
const compare = (a, b, sign) => {
  if (a === null || b === null) return (a === null) - (b === null); // unknown values stay at the end
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
};
const makeSortable = (table, items) => {
  const heads = [...table.tHead.rows[0].cells];
  for (const [column, head] of heads.entries()) {
    if (!("sort" in head.dataset)) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort") ?? (head.dataset.sort === "down" ? "ascending" : "descending");
      const sign = before === "descending" ? 1 : -1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const values = new Map(items.map((item) => [item, valueOf(item, column)]));
      items.sort((a, b) => compare(values.get(a), values.get(b), sign));
      for (const item of items) item.parentNode.append(item);
    });
  }
};
const makeFilterable = (tools, items) => {
  const fields = [...tools.querySelectorAll("select, input")];
  const count = tools.querySelector("output");
  const texts = new Map(items.map((item) => [item, item.textContent.toLowerCase()]));
  const shows = (item, field) =>
    field.value === "" ||
    (field.dataset.key
      ? item.dataset[field.dataset.key].split(" ").includes(field.value)
      : texts.get(item).includes(field.value.toLowerCase()));
  const apply = () => {
    for (const item of items) item.hidden = !fields.every((field) => shows(item, field));
    count.textContent = `${items.filter((item) => !item.hidden).length} of ${items.length} shown`;
  };
  for (const field of fields) field.addEventListener("input", apply);
  tools.hidden = false;
  apply();
};
for (const table of document.querySelectorAll("table.sortable")) {
  const items = [...table.querySelectorAll("[data-item]")];
  makeSortable(table, items);
  const tools = document.getElementById(`${table.id}-tools`);
  if (tools) makeFilterable(tools, items);
}
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")].filter((details) => !details.closest(".problems"));
  for (const details of closed) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of closed) details.open = false;
  closed = [];
});
