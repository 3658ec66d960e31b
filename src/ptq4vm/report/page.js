"use strict";
/* Sorting, copying, the metric of the stage table, and the sliders over alphas. */
const DATA = JSON.parse(document.getElementById("data").textContent);

function say(text) {
  document.getElementById("said").textContent = text;
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function fill(select, choices) {
  select.replaceChildren(...choices.map(([value, text]) => element("option", { value, textContent: text })));
}

/* ---- tables ---- */

function compareCells(first, second, direction) {
  if (first === undefined || second === undefined) return (first === undefined) - (second === undefined); // unknown last
  const numbers = [Number(first), Number(second)];
  const order = numbers.some(Number.isNaN) ? first.localeCompare(second) : numbers[0] - numbers[1];
  return direction * order;
}

function sortTable(table, column) {
  const headings = [...table.tHead.rows[0].cells];
  const ascending = headings[column].getAttribute("aria-sort") !== "ascending";
  headings.forEach((heading, index) =>
    heading.setAttribute("aria-sort", index !== column ? "none" : ascending ? "ascending" : "descending"));
  const body = table.tBodies[table.tBodies.length - 1];
  const value = (row) => row.cells[column].dataset.sort;
  const rows = [...body.rows].sort((a, b) => compareCells(value(a), value(b), ascending ? 1 : -1));
  rows.forEach((row) => row.classList.remove("break"));
  body.append(...rows);
  const title = headings[column].querySelector("button").firstChild.textContent;
  say(`Sorted by ${title}, ${ascending ? "ascending" : "descending"}`);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((heading, column) =>
    heading.querySelector("button").addEventListener("click", () => sortTable(table, column)));
}

document.getElementById("stage-metric")?.addEventListener("change", (event) => {
  for (const cell of document.querySelectorAll("#stage-table [data-values]")) {
    cell.textContent = JSON.parse(cell.dataset.values)[event.target.value];
  }
});

/* ---- runs ---- */

function openTarget() {
  const target = location.hash.startsWith("#run-") && document.getElementById(location.hash.slice(1));
  if (target) target.open = true;
}
addEventListener("hashchange", openTarget);
openTarget();

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // no permission: the text is selected instead
  }
}

for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    const done = await copy(code.textContent);
    if (!done) getSelection().selectAllChildren(code);
    button.textContent = done ? "Copied" : "Selected";
    say(done ? "Command copied" : "Command selected: copy it with your keyboard");
    setTimeout(() => { button.textContent = "Copy"; }, 1800);
  });
}

/* ---- alphas ---- */

const LEFT_NAMES = { fp32: "FP32", truth: "Truth", input: "Input" };

function image(name, alt, className = "") {
  return element("img", { src: DATA.images[name], alt, className, draggable: false });
}

function slider(frame, part, move) {
  const shown = frame.images[part] ? part : "fp32";
  const range = element("input", { type: "range", min: 0, max: 100, step: 1, value: 50 });
  range.setAttribute("aria-label", `How much of ${LEFT_NAMES[shown]} to show over the alpha of ${frame.run}, percent`);
  range.addEventListener("input", () => move(range));
  return element("div", { className: "compare" },
    image(frame.images.quantized, `Quantized alpha of ${frame.run}`),
    image(frame.images[shown], `${LEFT_NAMES[shown]} of ${frame.clip}`, "left"),
    element("span", { className: "tag", textContent: LEFT_NAMES[shown] }),
    element("span", { className: "tag", textContent: frame.bits || "quantized" }),
    element("div", { className: "line" }),
    range);
}

function tile(frame, part, move) {
  const mad = frame.mad == null ? "" : `MAD ${frame.mad.toFixed(2)}`;
  const caption = element("figcaption", {},
    element("span", { textContent: frame.run }), element("span", { className: "faint", textContent: mad }));
  return frame.images.sheet
    ? element("figure", { className: "wide" }, image(frame.images.sheet, `Contact sheet of ${frame.clip}, ${frame.run}`), caption)
    : element("figure", {}, slider(frame, part, move), caption);
}

function setUpAlphas() {
  const [clip, bits, seed, left, together] =
    ["clip", "bits", "seed", "left", "together"].map((name) => document.getElementById(`alpha-${name}`));
  const tiles = document.getElementById("alpha-tiles");
  const unique = (key) => [...new Set(DATA.frames.map((frame) => frame[key]))];
  fill(clip, unique("clip").map((name) => [name, name]));
  const choices = (key) => [...unique(key).filter(Boolean).map((name) => [name, name]), ["", "all"]];
  fill(bits, choices("bits"));
  fill(seed, choices("seed").sort(([a], [b]) => (a === "") - (b === "") || a - b));
  bits.selectedIndex = Math.max(0, bits.length - 2); // the fewest bits show most
  document.getElementById("alpha-seeds").hidden = seed.length < 3;

  const move = (moved) => {
    const ranges = together.checked ? tiles.querySelectorAll("input[type=range]") : [moved];
    for (const range of ranges) {
      range.value = moved.value;
      range.parentElement.style.setProperty("--at", `${moved.value}%`);
    }
  };
  const draw = () => {
    const chosen = DATA.frames.filter((frame) =>
      frame.clip === clip.value && (!bits.value || frame.bits === bits.value)
      && (!seed.value || frame.seed === seed.value));
    chosen.sort((a, b) => ("sheet" in a.images) - ("sheet" in b.images)); // wide ones last
    tiles.replaceChildren(...(chosen.length ? chosen.map((frame) => tile(frame, left.value, move))
      : [element("p", { className: "faint", textContent: "No such run kept pictures of this clip." })]));
  };
  for (const select of [clip, bits, seed, left]) select.addEventListener("change", draw);
  draw();
}

if (DATA.frames.length) setUpAlphas();
