"use strict";
// Texts of queries and documents reach the page as text nodes only, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const EXTREMES = 5;

function make(tag, attributes, ...children) {
  const space = ["svg", "path", "line", "text"].includes(tag) ? SVG : "http://www.w3.org/1999/xhtml";
  const made = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Tables

function sortKey(row, column) {
  const cell = row.cells[column];
  if (!cell.classList.contains("number")) return cell.textContent;
  return "value" in cell.dataset ? Number(cell.dataset.value) : null;
}

function compareKeys(one, other) {
  return typeof one === "number" ? one - other : one.localeCompare(other, undefined, { numeric: true });
}

function sort(table, heading) {
  const before = heading.getAttribute("aria-sort");
  const first = heading.dataset.first;
  const other = first === "ascending" ? "descending" : "ascending";
  const order = before === first ? other : first;
  const column = heading.cellIndex;
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].map((row) => [sortKey(row, column), row]);
  rows.sort(([one], [two]) => {
    if (one === null || two === null) return (one === null) - (two === null); // what was not measured comes last
    return sign * compareKeys(one, two);
  });
  for (const each of heading.parentElement.cells) each.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", order);
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function makeSortable(table) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = make("button", { type: "button" }, heading.textContent);
    button.addEventListener("click", () => sort(table, heading));
    heading.replaceChildren(button);
    heading.setAttribute("aria-sort", "none");
  }
}

// Differences query by query

const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("chosen");

function fill(select, names, chosen) {
  const kept = names.includes(select.value) ? select.value : names[Math.min(chosen, names.length - 1)];
  select.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
  select.value = kept;
}

function signed(value) {
  return (value < 0 ? "−" : "+") + Math.abs(value).toFixed(4);
}

function differences(collection, measure, before, after) {
  const [from, to] = [before, after].map((system) => collection.values[system][measure]);
  return collection.queries
    .map(([id, text], n) => ({ id, text, from: from[n], to: to[n], difference: to[n] - from[n] }))
    .sort((one, other) => other.difference - one.difference);
}

function drawBars(rows) {
  const [width, height, left, top] = [960, 220, 48, 8];
  const reach = Math.max(...rows.map((row) => Math.abs(row.difference))) || 1;
  const middle = top + height / 2;
  const step = (width - left) / rows.length;
  const gap = step > 4 ? 1 : 0;
  const bar = (row, n) => {
    const end = middle - (row.difference / reach) * (height / 2);
    return `M${(left + n * step).toFixed(2)} ${middle}V${end.toFixed(2)}h${(step - gap).toFixed(2)}V${middle}z`;
  };
  const path = (wanted) => rows.map((row, n) => (wanted(row.difference) ? bar(row, n) : "")).join("");
  const tick = (value, y) => make("text", { x: left - 6, y: y + 4, "text-anchor": "end", class: "tick" }, value);
  const label = `Differences of ${rows.length} queries, from ${signed(rows[0].difference)} to ` +
    signed(rows[rows.length - 1].difference);
  const cursor = make("line", { y1: top, y2: top + height, x1: -9, x2: -9, class: "cursor" });
  const plot = make("svg", { viewBox: `0 0 ${width} ${height + 2 * top}`, role: "img", "aria-label": label },
    make("path", { d: path((value) => value > 0), class: "gain" }),
    make("path", { d: path((value) => value < 0), class: "loss" }),
    make("line", { x1: left, x2: width, y1: middle, y2: middle, class: "zero" }),
    tick(`+${reach.toFixed(2)}`, top + 6), tick("0", middle), tick(`−${reach.toFixed(2)}`, top + height - 6), cursor);
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    const row = rows[Math.min(rows.length - 1, Math.max(0, Math.floor((x - left) / step)))];
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, x);
    document.getElementById("pointed").textContent = `${signed(row.difference)}  ${row.id}: ${row.text}`;
  });
  return plot;
}

function extremesTable(caption, rows, names) {
  const number = (value, text) => make("td", { class: "number", "data-value": value }, text);
  const heads = ["query", "difference", ...names].map((name, n) =>
    make("th", { scope: "col", class: n ? "number" : "", "data-first": n ? "descending" : "ascending" }, name));
  const body = rows.map((row) => make("tr", {},
    make("th", { scope: "row" }, `${row.id}: ${row.text}`), number(row.difference, signed(row.difference)),
    number(row.from, row.from.toFixed(4)), number(row.to, row.to.toFixed(4))));
  const table = make("table", { class: "sortable" }, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body));
  makeSortable(table);
  return make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption }, table);
}

function showDifferences() {
  const { measure, before, after } = form.elements;
  const collection = data.collections[form.elements.collection.selectedIndex];
  fill(before, collection.systems, 0);
  fill(after, collection.systems, 1);
  const chosen = [measure, before, after].map((select) => select.selectedIndex);
  const rows = differences(collection, ...chosen);
  const gains = rows.filter((row) => row.difference > 0);
  const losses = rows.filter((row) => row.difference < 0).sort((one, other) => one.difference - other.difference);
  const mean = rows.reduce((sum, row) => sum + row.difference, 0) / rows.length;
  document.getElementById("counts").textContent =
    `${measure.value} on ${collection.name}: better on ${gains.length} of ${rows.length} queries, worse on ` +
    `${losses.length}, equal on ${rows.length - gains.length - losses.length}; mean difference ${signed(mean)}.`;
  document.getElementById("bars").replaceChildren(drawBars(rows),
    make("figcaption", {}, "A bar for every query, sorted by the difference; point at one to read it."));
  document.getElementById("pointed").textContent = "\u00a0";
  const shown = [["Largest gains", gains], ["Largest losses", losses]].filter(([, some]) => some.length);
  document.getElementById("extremes").replaceChildren(...shown.map(([caption, some]) =>
    extremesTable(caption, some.slice(0, EXTREMES), [before.value, after.value])));
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
if (data.collections.length) {
  fill(form.elements.collection, data.collections.map((each) => each.name), 0);
  fill(form.elements.measure, data.measures, 0);
  form.hidden = false;
  form.addEventListener("change", showDifferences);
  form.addEventListener("submit", (event) => event.preventDefault());
  showDifferences();
}
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
});
