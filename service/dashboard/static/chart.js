// An interactive chart: a tooltip under the pointer, dragging zooms, a double click resets.

import { paint } from "./paint.js";
import { inView, say, svg } from "./plot.js";

const REACH = 24; // pixels from the pointer to a point with a tooltip
const LEAST = 8; // smallest zoom, in pixels

// Shows in `element` the chart that `make` returns, as paint.js takes it, or {empty: "message"}. Returns a function that
// redraws it.
export function chart(element, make) {
  const front = svg("svg", { role: "img" });
  const tip = Object.assign(document.createElement("p"), { className: "tip small", hidden: true });
  const halo = svg("circle", { class: "halo", r: 6 });
  const frame = svg("rect", { class: "zoom" });
  let zoom = null; // the visible range of both axes
  let axes = ""; // the axes that `zoom` belongs to
  let picture = null;
  let pointer = null; // its position
  let start = null; // where the drag started

  const redraw = inView(element, (width, height) => {
    const made = make();
    if (made.empty) {
      say(element, made.empty);
      return;
    }
    const these = JSON.stringify([made.x, made.y]);
    if (these !== axes) zoom = null;
    axes = these;
    picture = paint(made, width, height, zoom);
    front.setAttribute("viewBox", `0 0 ${width} ${height}`);
    front.setAttribute("aria-label", made.y.title ? `${made.y.title} by ${made.x.title}` : made.x.title);
    front.replaceChildren(...picture.parts, halo, frame);
    if (!front.isConnected) element.replaceChildren(front, tip);
    follow();
    element.dataset.drawn = "";
  });

  // Shows the tooltip at the pointer, or the area that is dragged.
  function follow() {
    const area = start && dragged();
    frame.style.display = area ? "" : "none";
    if (area) {
      const { x, y } = area;
      for (const [name, value] of Object.entries({ x: x[0], y: y[0], width: x[1] - x[0], height: y[1] - y[0] })) frame.setAttribute(name, value);
    }
    showTip(start || !pointer ? null : nearest(picture.placed, ...pointer));
  }

  function showTip(point) {
    tip.hidden = !point;
    halo.style.display = point && point.mark.kind !== "bars" ? "" : "none";
    if (!point) return;
    tip.textContent = point.mark.says(point.i);
    tip.style.left = `${point.x}px`;
    tip.style.top = `${point.y}px`;
    tip.classList.toggle("leftwards", point.x > (picture.left + picture.right) / 2);
    halo.setAttribute("cx", point.x);
    halo.setAttribute("cy", point.y);
  }

  // The dragged area: an axis along which the pointer hardly moved counts whole; null for a click.
  function dragged() {
    const { left, right, top, bottom } = picture;
    const [wide, tall] = [0, 1].map((k) => Math.abs(pointer[k] - start[k]) >= LEAST);
    const between = (k) => [start[k], pointer[k]].sort((a, b) => a - b);
    return wide || tall ? { x: wide ? between(0) : [left, right], y: tall ? between(1) : [top, bottom] } : null;
  }

  function at(event) {
    const box = front.getBoundingClientRect();
    const { left, right, top, bottom } = picture;
    return [Math.min(right, Math.max(left, event.clientX - box.left)), Math.min(bottom, Math.max(top, event.clientY - box.top))];
  }
  front.addEventListener("pointerdown", (event) => {
    pointer = at(event);
    if (event.button === 0 && event.pointerType !== "touch") {
      start = pointer;
      front.setPointerCapture(event.pointerId);
    }
    follow();
  });
  front.addEventListener("pointermove", (event) => {
    pointer = at(event);
    follow();
  });
  front.addEventListener("pointerup", () => {
    const area = start && dragged();
    start = null;
    if (!area) return;
    zoom = { x: area.x.map(picture.across.back), y: area.y.reverse().map(picture.upwards.back) };
    redraw();
  });
  for (const name of ["pointerleave", "pointercancel"]) {
    front.addEventListener(name, () => {
      pointer = start = null;
      follow();
    });
  }
  front.addEventListener("dblclick", () => {
    zoom = null;
    redraw();
  });
  return redraw;
}

// The nearest point that has a tooltip.
function nearest(placed, px, py) {
  let found = null;
  let least = REACH;
  for (const { mark, x, y, wide, tall } of placed) {
    if (!mark.says) continue;
    for (let i = 0; i < x.length; i++) {
      const away = Math.hypot(Math.max(0, Math.abs(x[i] - px) - wide(i)), Math.max(0, Math.abs(y[i] - py) - tall));
      if (away <= least) [found, least] = [{ mark, i, x: x[i], y: y[i] }, away];
    }
  }
  return found;
}
