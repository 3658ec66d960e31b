"use strict";
/* Figures, drawn by plotly.js in the page's own colours, and drawn again when the page turns dark or light. */
const HUES = ["#3b7dd8", "#e07b2a", "#2f9e6e", "#c2476b", "#8a63d2", "#b08a1e", "#2a9fb5", "#7d7f86", "#d1603d", "#5c8f2c"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "x"];
const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function axis(title, more = {}) {
  const line = colour("line");
  return { title: { text: title, standoff: 8 }, gridcolor: line, linecolor: line, zeroline: false, automargin: true, ...more };
}

function layout(more) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") },
    margin: { l: 56, r: 16, t: 28, b: 48 },
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("strong-line"), font: { color: colour("ink") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("faint"), activecolor: colour("accent") },
    legend: { orientation: "h", x: 0, y: -0.2, yanchor: "top", font: { size: 12 } },
    ...more,
  };
}

function draw(id, traces, shape, empty) {
  const place = document.getElementById(id);
  if (traces.length) {
    place.querySelector(".empty")?.remove();
    Plotly.react(place, traces, shape, CONFIG);
  } else {
    if (place.data) Plotly.purge(place);
    place.replaceChildren(element("p", { className: "empty", textContent: empty }));
  }
}

/* A logarithmic axis labels few values by itself: these are the readable ones within a range. */
function logTicks(values) {
  const low = Math.min(...values), high = Math.max(...values);
  const steps = high / low > 300 ? [1] : high / low > 20 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)) - 1; power <= Math.ceil(Math.log10(high)); power++) {
    for (const step of steps) ticks.push(step * 10 ** power);
  }
  return { tickmode: "array", tickvals: ticks, ticktext: ticks.map((tick) => String(Number(tick.toPrecision(3)))) };
}

/* ---- error versus size and seconds ---- */

function scatter(id, key, title, metric, logarithmic) {
  const only = document.getElementById("tradeoff-bits").value;
  const points = DATA.scatter.points.filter((point) =>
    point[key] != null && point.mean[metric] != null && (!only || point.bits === only));
  const labels = [...new Set(DATA.scatter.points.map((point) => point.label))];
  const widths = [...new Set(DATA.scatter.points.map((point) => point.bits))];
  const name = DATA.metrics[metric];
  const traces = labels.map((label, index) => {
    const own = points.filter((point) => point.label === label);
    return {
      type: "scatter", mode: "markers", name: label, x: own.map((p) => p[key]), y: own.map((p) => p.mean[metric]),
      error_y: { type: "data", array: own.map((p) => p.deviation[metric]), visible: own.some((p) => p.n > 1), thickness: 1.2, width: 3 },
      marker: { color: HUES[index % HUES.length], size: 10, symbol: own.map((p) => SYMBOLS[widths.indexOf(p.bits) % SYMBOLS.length]) },
      customdata: own.map((p) => [p.bits, p.n > 1 ? ` ± ${p.deviation[metric].toFixed(2)} (${p.n} seeds)` : ""]),
      hovertemplate: `%{customdata[0]} ${label}<br>${name} %{y:.2f}%{customdata[1]}<br>${title}: %{x:.4~g}<extra></extra>`,
    };
  }).filter((trace) => trace.x.length);
  const keys = traces.length && !only ? widths.map((bits, index) => ({
    type: "scatter", mode: "markers", name: bits, x: [null], y: [null], legendgroup: "bits", hoverinfo: "skip",
    marker: { color: colour("faint"), size: 9, symbol: SYMBOLS[index % SYMBOLS.length] },
  })) : [];
  const lines = DATA.scatter.lines.map((line) => ({ text: line.label, y: line.metrics[metric] })).filter((line) => line.y != null);
  const positive = [...points.map((p) => p.mean[metric]), ...lines.map((line) => line.y)].filter((y) => y > 0);
  const wide = positive.length && Math.max(...positive) / Math.min(...positive) > 4;
  const xs = points.map((p) => p[key]).filter((x) => x > 0);
  draw(id, [...traces, ...keys], layout({
    xaxis: axis(title, logarithmic && xs.length ? { type: "log", ...logTicks(xs) } : { rangemode: "tozero" }),
    yaxis: axis(name, wide ? { type: "log", ...logTicks(positive) } : {}),
    shapes: lines.map((line) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: line.y, y1: line.y, line: { color: colour("faint"), width: 1, dash: "dash" },
    })),
    annotations: lines.map((line) => ({
      xref: "paper", x: 1, xanchor: "right", y: wide ? Math.log10(line.y) : line.y, yanchor: "top", showarrow: false,
      text: `${line.text} ${line.y.toFixed(2)}`, font: { color: colour("faint"), size: 11 },
    })),
  }), "No run has noted this.");
}

function drawTradeoffs() {
  const metric = document.getElementById("tradeoff-metric").value;
  scatter("size-plot", "megabytes", "stored megabytes", metric, false);
  scatter("seconds-plot", "seconds", "seconds", metric, true);
}

/* ---- loss curves ---- */

const EVERY = "*";

function depthColour(index, count) {
  const at = count > 1 ? index / (count - 1) : 0;
  return `hsl(${Math.round(265 - 235 * at)} 62% ${matchMedia("(prefers-color-scheme: dark)").matches ? 62 : 45}%)`;
}

/* What a loss is called where runs are compared: blocks by their own name, whichever method trains them. */
function shared(name) {
  return name.startsWith("gac/") ? name : name.slice(name.indexOf("/") + 1);
}

function curveTraces() {
  const run = document.getElementById("curve-run").value, series = document.getElementById("curve-series").value;
  const found = [];
  for (const [index, item] of DATA.curves.entries()) {
    if (run !== EVERY && Number(run) !== index) continue;
    for (const [name, [x, y]] of Object.entries(item.series)) {
      const all = series.endsWith(`/${EVERY}`) && name.startsWith(series.slice(0, -1));
      const own = run === EVERY ? shared(name) === series : all || name === series;
      if (own) found.push({ x, y, name: run === EVERY ? item.run : name.slice(name.indexOf("/") + 1) });
    }
  }
  return found.map((curve, index) => ({
    type: "scatter", mode: "lines", name: curve.name, x: curve.x, y: curve.y,
    line: { width: 1.6, color: run === EVERY ? HUES[index % HUES.length] : depthColour(index, found.length) },
    hovertemplate: `step %{x}: %{y:.4~g}<extra>${curve.name}</extra>`,
  }));
}

function drawCurves() {
  const traces = curveTraces();
  const place = document.getElementById("curve-plot");
  const wide = place.clientWidth > 720;
  const positive = traces.every((trace) => trace.y.every((y) => y > 0));
  draw("curve-plot", traces, layout({
    xaxis: axis("step", { rangemode: "tozero" }),
    yaxis: axis("loss", positive ? { type: "log", exponentformat: "power", dtick: 1 } : {}),
    showlegend: wide || traces.length <= 4,
    legend: wide ? { orientation: "v", x: 1.01, y: 1, font: { size: 11 } } : { orientation: "h", x: 0, y: -0.2, yanchor: "top" },
  }), "No such curve.");
}

/* Losses that the chosen run has; all of a stage at once where one run is chosen. */
function fillSeries() {
  const run = document.getElementById("curve-run").value, select = document.getElementById("curve-series");
  const before = select.value;
  const runs = run === EVERY ? DATA.curves : [DATA.curves[Number(run)]];
  const called = run === EVERY ? shared : (name) => name;
  const names = [...new Set(runs.flatMap((item) => Object.keys(item.series).map(called)))];
  const stages = run === EVERY ? [] : [...new Set(names.map((name) => name.split("/")[0]))];
  const whole = stages.filter((stage) => names.filter((name) => name.startsWith(`${stage}/`)).length > 1);
  const choices = [
    ...whole.map((stage) => [`${stage}/${EVERY}`, `${stage}: all`]),
    ...names.map((name) => [name, name.replace("/", ": ")]),
  ];
  fill(select, choices);
  if (choices.some(([value]) => value === before)) select.value = before;
}

function setUpCurves() {
  const runs = DATA.curves.map((item, index) => [String(index), item.run]);
  const select = document.getElementById("curve-run");
  fill(select, runs.length > 1 ? [...runs, [EVERY, "All runs"]] : runs);
  fillSeries();
  select.addEventListener("change", () => { fillSeries(); drawCurves(); });
  document.getElementById("curve-series").addEventListener("change", drawCurves);
}

/* ---- layers ---- */

function drawHeat() {
  const { layers, columns, values, bits, mixed } = DATA.heat;
  const place = document.getElementById("heat-plot");
  const width = Math.min(place.parentElement.clientWidth, 340 + 160 * columns.length); // wide cells say no more
  place.style.width = `${Math.max(width, 300 + 40 * columns.length)}px`;
  place.style.height = `${190 + 15 * layers.length}px`;
  const known = values.flat().filter((value) => value != null);
  const low = Math.floor(Math.min(...known)), high = Math.ceil(Math.max(...known));
  const ticks = Array.from({ length: high - low + 1 }, (_, index) => low + index);
  draw("heat-plot", [{
    type: "heatmap", x: columns.map((_, index) => index), y: layers.map((_, index) => index), z: values,
    zmin: low, zmax: high, colorscale: "Viridis", xgap: 1, hoverongaps: false,
    text: bits.map((row) => row.map((value, x) => (mixed[x] && value != null && value < 32 ? String(value) : ""))),
    texttemplate: "%{text}", textfont: { size: 10 },
    customdata: values.map((row, y) => row.map((value, x) =>
      (value == null ? "" : `${layers[y]}<br>${columns[x]}<br>error ${(10 ** value).toPrecision(3)}`)
      + (value != null && bits[y][x] != null ? `<br>weights of ${bits[y][x]} bits` : ""))),
    hovertemplate: "%{customdata}<extra></extra>",
    colorbar: {
      title: { text: "error", side: "right" }, tickvals: ticks, ticktext: ticks.map((power) => String(Number((10 ** power).toPrecision(1)))),
      thickness: 12, len: Math.min(1, 320 / (15 * layers.length)), y: 1, yanchor: "top", outlinewidth: 0,
    },
  }], layout({
    xaxis: axis("", { side: "top", tickangle: -40, tickvals: columns.map((_, index) => index), ticktext: columns, showgrid: false }),
    yaxis: axis("", { autorange: "reversed", tickvals: layers.map((_, index) => index), ticktext: layers, tickfont: { size: 11 }, showgrid: false }),
    margin: { l: 20, r: 10, t: 30, b: 10 },
  }), "");
}

/* ---- all of them ---- */

function drawAll() {
  if (document.getElementById("size-plot")) drawTradeoffs();
  if (DATA.curves.length) drawCurves();
  if (DATA.heat) drawHeat();
}

if (document.getElementById("size-plot")) {
  const bits = [...new Set(DATA.scatter.points.map((point) => point.bits))];
  fill(document.getElementById("tradeoff-bits"), [["", "all"], ...bits.map((name) => [name, name])]);
  for (const name of ["metric", "bits"]) document.getElementById(`tradeoff-${name}`).addEventListener("change", drawTradeoffs);
}
if (DATA.curves.length) setUpCurves();
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
