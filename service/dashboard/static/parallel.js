// Parallel coordinates: one line per design, coloured by its rank; brushes on the axes filter them. Lines are drawn on a
// canvas; axes and brushes are SVG, so that keyboards and screen readers can reach them.

import { colour, figure, inView, say, scale, series, svg } from "./plot.js";

const TOP = 44;
const BOTTOM = 22;
const SIDE = 56;
const LEAST = 108; // pixels between two axes
const REACH = 14; // pixels to each side of an axis that react to a brush
const TICKS = 7;

// Maps values to 0 (bottom) to 1 (top), and chooses the tick labels.
function scaleOf(values, upwards = true) {
  const known = values.filter((value) => value !== null);
  const distinct = [...new Set(known)];
  if (distinct.every((value) => typeof value === "number")) {
    const [low, high] = [Math.min(...distinct), Math.max(...distinct)];
    const log = low > 0 && high / low >= 8;
    const at = (value) => {
      if (high === low) return 0.5;
      const share = log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
      return upwards ? share : 1 - share;
    };
    const sorted = distinct.sort((a, b) => a - b);
    const few = sorted.length <= TICKS;
    const even = Array.from({ length: 5 }, (_, i) => (log ? low * (high / low) ** (i / 4) : low + ((high - low) * i) / 4));
    return { at, ticks: few ? sorted : even, text: (value) => figure(Number(value.toPrecision(3))) };
  }
  const sorted = distinct.map(String).sort();
  const at = (value) => (sorted.length < 2 ? 0.5 : 1 - (sorted.indexOf(String(value)) + 0.5) / sorted.length);
  return { at, ticks: sorted, text: (value) => (value.length > 15 ? `${value.slice(0, 14)}…` : value) };
}

export function parallel(element, { count, clear, pick, choose }) {
  const canvas = document.createElement("canvas");
  const front = svg("svg", { role: "group", "aria-label": "Axes of the designs" });
  const tip = Object.assign(document.createElement("p"), { className: "tip small", hidden: true });
  const brushes = new Map(); // axis → [low, high] as shares of its height
  let land = null;
  let chosen = [];
  let axes = [];
  let width = 0;
  let height = 0;

  const x = (i) => SIDE + (axes.length < 2 ? 0 : (i * (width - 2 * SIDE)) / (axes.length - 1));
  const y = (share) => TOP + (1 - share) * (height - TOP - BOTTOM);
  const share = (pixel) => Math.min(1, Math.max(0, 1 - (pixel - TOP) / (height - TOP - BOTTOM)));
  const kept = () => land.number.map((_, i) => i).filter((i) => axes.every(({ name, values, at }) => {
    const brush = brushes.get(name);
    return !brush || (values[i] !== null && at(values[i]) >= brush[0] - 1e-9 && at(values[i]) <= brush[1] + 1e-9);
  }));

  function prepare() {
    const varied = land.axes.filter((axis) => new Set(axis.values.filter((value) => value !== null)).size > 1);
    axes = varied.map(({ axis, values }) => ({ name: axis, values, ...scaleOf(values) }));
    axes.push({ name: land.unit, values: land.last, ...scaleOf(land.last, !land.lower_is_better), score: true });
    for (const name of brushes.keys()) if (!axes.some((axis) => axis.name === name)) brushes.delete(name);
  }

  function measure(given) {
    width = Math.max(given, 2 * SIDE + LEAST * (axes.length - 1));
    height = 330;
    const ratio = devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = front.style.width = `${width}px`;
    canvas.style.height = front.style.height = `${height}px`;
    canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    front.setAttribute("viewBox", `0 0 ${width} ${height}`);
  }

  function path(context, i) {
    context.beginPath();
    let open = false;
    axes.forEach(({ values, at }, k) => {
      if (values[i] === null) {
        open = false;
        return;
      }
      const [px, py] = [x(k), y(at(values[i]))];
      if (!open) context.moveTo(px, py);
      else {
        const middle = (x(k - 1) + px) / 2;
        context.bezierCurveTo(middle, y(axes[k - 1].at(axes[k - 1].values[i])), middle, py, px, py);
      }
      open = true;
    });
    context.stroke();
  }

  function drawLines(hovered = null) {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const on = new Set(kept());
    const dense = land.number.length > 120 ? 0.35 : 0.7;
    context.lineWidth = 1;
    context.strokeStyle = colour("soft", 0.12);
    land.number.forEach((_, i) => on.has(i) || path(context, i));
    const ordered = [...on].sort((a, b) => land.standing[b] - land.standing[a]);
    for (const i of ordered) {
      context.lineWidth = land.number[i] === land.best ? 2.4 : 1.2;
      context.strokeStyle = scale(land.standing[i], land.number[i] === land.best ? 1 : dense);
      path(context, i);
    }
    context.lineWidth = 2.4;
    chosen.forEach((number, k) => {
      const i = land.number.indexOf(number);
      if (i < 0) return;
      context.strokeStyle = series(k);
      path(context, i);
    });
    if (hovered !== null) {
      context.lineWidth = 3;
      context.strokeStyle = colour("ink");
      path(context, hovered);
    }
    count.textContent = brushes.size ? `${on.size} of ${land.number.length} designs` : "";
    clear.hidden = !brushes.size;
    pick.hidden = !brushes.size || !on.size;
    element.dataset.kept = on.size;
  }

  function drawAxes() {
    front.replaceChildren();
    axes.forEach((axis, i) => {
      const group = svg("g", { class: `axis${axis.score ? " score" : ""}`, transform: `translate(${x(i)} 0)` });
      group.append(svg("line", { y1: y(1), y2: y(0) }));
      const words = axis.name.length > 17 ? `${axis.name.slice(0, 16)}…` : axis.name;
      const [anchor, shift] = i === 0 ? ["start", 12 - SIDE] : axis.score ? ["end", SIDE - 12] : ["middle", 0];
      group.append(svg("text", { class: "name", x: shift, y: i % 2 && axes.length > 7 ? 30 : 14, "text-anchor": anchor }, words));
      for (const tick of axis.ticks) {
        const beside = i === 0 ? { x: 6, "text-anchor": "start" } : { x: -6, "text-anchor": "end" }; // no room left of the first axis
        group.append(svg("text", { class: "tick", y: y(axis.at(tick)) + 4, ...beside }, axis.text(tick)));
      }
      const reach = svg("rect", {
        class: "reach", x: -REACH, width: 2 * REACH, y: y(1) - 8, height: y(0) - y(1) + 16, tabindex: 0, role: "slider",
        "aria-orientation": "vertical", "aria-label": `Keep designs by ${axis.name}`, "aria-valuenow": 0, "data-axis": axis.name,
      });
      group.append(reach);
      group.append(svg("rect", { class: "brush", x: -7, width: 14, rx: 3 }));
      front.append(group);
      brushable(reach, axis);
      drawBrush(axis);
    });
  }

  function drawBrush(axis) {
    const group = front.children[axes.indexOf(axis)];
    const [reach, rect] = [group.querySelector(".reach"), group.querySelector(".brush")];
    const brush = brushes.get(axis.name);
    rect.style.display = brush ? "" : "none";
    reach.setAttribute("aria-valuetext", brush ? `${Math.round(brush[0] * 100)} to ${Math.round(brush[1] * 100)} percent of the axis` : "all");
    if (!brush) return;
    rect.setAttribute("y", y(brush[1]));
    rect.setAttribute("height", Math.max(3, y(brush[0]) - y(brush[1])));
  }

  function set(axis, brush) {
    if (brush) brushes.set(axis.name, brush);
    else brushes.delete(axis.name);
    drawBrush(axis);
    drawLines();
  }

  function brushable(reach, axis) {
    let start = null;
    reach.addEventListener("pointerdown", (event) => {
      start = share(event.offsetY * (height / front.clientHeight));
      reach.setPointerCapture(event.pointerId);
      event.preventDefault();
      reach.focus({ preventScroll: true });
    });
    reach.addEventListener("pointermove", (event) => {
      if (start === null) return;
      const to = share(event.clientY - front.getBoundingClientRect().top);
      if (Math.abs(to - start) > 0.015) set(axis, [Math.min(start, to), Math.max(start, to)]);
    });
    reach.addEventListener("pointerup", (event) => {
      const to = share(event.clientY - front.getBoundingClientRect().top);
      if (start !== null && Math.abs(to - start) <= 0.015) set(axis, null);
      start = null;
    });
    // The arrow keys move the lower end, with Shift the upper end.
    reach.addEventListener("keydown", (event) => {
      const [low, high] = brushes.get(axis.name) ?? [0, 1];
      const step = { ArrowUp: 0.1, ArrowDown: -0.1 }[event.key];
      if (event.key === "Escape") set(axis, null);
      else if (step) {
        const next = event.shiftKey
          ? [low, Math.min(1, Math.max(low, high + step))]
          : [Math.min(high, Math.max(0, low + step)), high];
        set(axis, next[0] <= 0.001 && next[1] >= 0.999 ? null : next);
      } else return;
      event.preventDefault();
    });
  }

  // Highlights the design with the nearest line.
  function hover(event) {
    if (event.buttons || !land) return;
    const box = front.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let [best, distance] = [null, 12];
    for (const i of kept()) {
      axes.forEach(({ values, at }, k) => {
        const next = axes[k + 1];
        if (!next || values[i] === null || next.values[i] === null || px < x(k) || px > x(k + 1)) return;
        const part = (px - x(k)) / (x(k + 1) - x(k));
        const smooth = part * part * (3 - 2 * part);
        const line = y(at(values[i])) * (1 - smooth) + y(next.at(next.values[i])) * smooth;
        if (Math.abs(line - py) < distance) [best, distance] = [i, Math.abs(line - py)];
      });
    }
    tip.hidden = best === null;
    if (best !== null) {
      tip.textContent = `#${land.number[best]} ${land.summary[best]}: ${figure(land.last[best])} ${land.unit} (${land.state[best]}${land.score[best] === null ? "" : `, n=${land.seeds[best]}`})`;
    }
    drawLines(best);
  }

  let frame = 0;
  front.addEventListener("pointermove", (event) => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => hover(event));
  });
  front.addEventListener("pointerleave", () => {
    tip.hidden = true;
    if (land) drawLines();
  });
  clear.addEventListener("click", () => {
    brushes.clear();
    for (const axis of axes) drawBrush(axis);
    drawLines();
  });
  pick.addEventListener("click", () => {
    const best = kept().sort((a, b) => land.standing[a] - land.standing[b]);
    choose(best.map((i) => land.number[i]));
  });
  const redraw = inView(element, (given) => {
    if (!land) return;
    prepare();
    if (land.number.length < 2 || axes.length < 2) {
      say(element, "Shown once two different designs have been scored.");
      return;
    }
    if (!front.isConnected) element.replaceChildren(canvas, front, tip);
    measure(given);
    drawAxes();
    drawLines();
    element.dataset.drawn = "";
  });

  function show(given, numbers) {
    land = given;
    chosen = numbers;
    redraw();
  }
  return { show };
}
