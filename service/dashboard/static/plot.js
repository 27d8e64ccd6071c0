// Charts by plotly in the page's own colours. A chart is drawn when it comes into view, and again when the colours
// change.

import { dark } from "./shell.js";

const probe = document.createElement("i");
probe.hidden = true;
document.body.append(probe);

let colours = new Map(); // as they are in the present theme

// A colour of style.css as plotly understands it.
export function colour(name, alpha = 1) {
  if (!colours.has(name)) {
    probe.style.color = `var(--${name})`;
    colours.set(name, getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).join(", "));
  }
  return `rgba(${colours.get(name)}, ${alpha})`;
}

// Of designs that were chosen one by one.
export const SERIES = 8;
export const series = (index) => colour(`s${index % SERIES}`);

// From good to bad, for lines and dots that show a standing between 0 and 1.
export function scale(standing, alpha = 1) {
  const stops = dark()
    ? [[95, 194, 141], [134, 179, 236], [110, 118, 128]]
    : [[29, 122, 74], [74, 128, 190], [190, 187, 178]];
  const at = Math.min(Math.max(standing, 0), 1) * 2;
  const [from, to] = at < 1 ? [stops[0], stops[1]] : [stops[1], stops[2]];
  const part = at < 1 ? at : at - 1;
  const [r, g, b] = from.map((value, i) => Math.round(value + (to[i] - value) * part));
  return `rgba(${r}, ${g}, ${b}, ${alpha})`;
}

export const figure = (value) =>
  value === null || value === undefined ? "–" : Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6, useGrouping: false });

export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

const axis = (given) => ({
  gridcolor: colour("line"),
  linecolor: colour("line"),
  zeroline: false,
  tickfont: { color: colour("soft"), size: 12 },
  automargin: true,
  ...given,
  title: { text: given?.title ?? "", font: { color: colour("soft"), size: 12.5 }, standoff: 8 },
});

function layout({ x, y, ...given }) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: colour("ink") },
    margin: { l: 52, r: 12, t: 8, b: 40 },
    hovermode: "closest",
    hoverlabel: {
      bgcolor: colour("sheet"), bordercolor: colour("line"), align: "left",
      font: { color: colour("ink"), size: 12.5 },
    },
    showlegend: false,
    xaxis: axis(x),
    yaxis: axis(y),
    ...given,
  };
}

// Plotly's script is fetched and read while the page's data are on their way. Pages without charts have none.
const script = document.querySelector("script[data-plotly]");
const plotly = window.Plotly || !script
  ? Promise.resolve()
  : new Promise((resolve) => script.addEventListener("load", resolve, { once: true }));

const CONFIG = { displayModeBar: false, responsive: true, showTips: false, doubleClick: "reset" };
const charts = new Map();

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const chart = charts.get(target);
    chart.visible = isIntersecting;
    if (isIntersecting && chart.stale) draw(target);
  }
}, { rootMargin: "200px" });

// Says that `element` shows what `make` answers with: {traces, layout}; or {empty: "words"}. Answers with a function that
// has it drawn anew.
export function chart(element, make, drawn = () => {}) {
  charts.set(element, { make, drawn, stale: true, visible: false });
  seen.observe(element);
  return () => {
    const chart = charts.get(element);
    chart.stale = true;
    if (chart.visible) draw(element);
  };
}

async function draw(element) {
  const chart = charts.get(element);
  chart.stale = false;
  await plotly;
  const { traces, layout: given, empty } = chart.make();
  if (empty) {
    say(element, empty);
    return;
  }
  element.querySelector(".waiting")?.remove();
  Plotly.react(element, traces, layout(given), CONFIG);
  chart.drawn(element);
  element.dataset.drawn = "";
}

export function say(element, words) {
  if (element.dataset.drawn !== undefined) Plotly.purge(element);
  delete element.dataset.drawn;
  element.innerHTML = "";
  element.append(Object.assign(document.createElement("p"), { className: "waiting", textContent: words }));
}

export function redrawAll() {
  colours = new Map();
  for (const [element, chart] of charts) {
    chart.stale = true;
    if (chart.visible) draw(element);
  }
}
document.addEventListener("luthier:theme", redrawAll);
