// Shared by all charts: colours, number formats, curve names, and when to draw.

import { dark } from "./shell.js";

const probe = document.createElement("i");
probe.hidden = true;
document.body.append(probe);

let colours = new Map(); // of the current theme

// A colour of style.css.
export function colour(name, alpha = 1) {
  if (!colours.has(name)) {
    probe.style.color = `var(--${name})`;
    colours.set(name, getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).join(", "));
  }
  return `rgba(${colours.get(name)}, ${alpha})`;
}

// The colours of selected designs.
export const SERIES = 8;
export const series = (index) => colour(`s${index % SERIES}`);

// A colour from good (0) to bad (1), for the relative rank of a design.
export function scale(rank, alpha = 1) {
  const stops = dark()
    ? [[95, 194, 141], [134, 179, 236], [110, 118, 128]]
    : [[29, 122, 74], [74, 128, 190], [190, 187, 178]];
  const at = Math.min(Math.max(rank, 0), 1) * 2;
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

const NS = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, words = null) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(key, value);
  if (words !== null) element.textContent = words;
  return element;
}

const drawings = new Set();

// Draws `element` with `draw(width, height)` when it comes into view, and again when its width or the theme changes.
// Returns a function that redraws it.
export function inView(element, draw) {
  let stale = true;
  let visible = false;
  let size = null;
  const update = () => {
    if (!stale || !visible || !size?.width) return;
    stale = false;
    draw(size.width, size.height);
  };
  const redraw = () => {
    stale = true;
    update();
  };
  new IntersectionObserver((entries) => {
    visible = entries.at(-1).isIntersecting;
    update();
  }, { rootMargin: "200px" }).observe(element);
  new ResizeObserver((entries) => {
    const { width, height } = entries.at(-1).contentRect;
    if (width === size?.width) return; // the height depends on the content or the width
    size = { width, height };
    redraw();
  }).observe(element);
  drawings.add(redraw);
  return redraw;
}

// Shows a message instead of the chart.
export function say(element, words) {
  delete element.dataset.drawn;
  element.replaceChildren(Object.assign(document.createElement("p"), { className: "waiting", textContent: words }));
}

export function redrawAll() {
  colours = new Map();
  for (const redraw of drawings) redraw();
}
document.addEventListener("luthier:theme", redrawAll);
