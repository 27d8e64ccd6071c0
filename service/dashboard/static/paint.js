// Paints a chart {x, y, marks, rules} as SVG. x and y are axes (scales.js). Marks are drawn in order, each
// {kind, x, y, color, says}: `says(i)` is the tooltip of point i; colours and sizes are constants or functions of i.
//   line  {width, stepped}; null separates curves
//   dots  {size, edge, shape: "cross" | "bar", words}; rings without a colour
//   bars  {to, words}: from x to `to`, in the row y
// Rules are lines from edge to edge: {x | y, color, dash, words}.

import { svg } from "./plot.js";
import { scaleOf, text } from "./scales.js";

const TOP = 10;
const RIGHT = 14;
const BOTTOM = 44;
const PAD = 9; // pixels between the outermost points and the edge
const BAR = 0.55; // share of the row height
const TILT = 32; // degrees, for names that are too long to be horizontal
const LONGEST = 22; // letters of a name

const pen = document.createElement("canvas").getContext("2d");
const of = (given, i) => (typeof given === "function" ? given(i) : given);
const written = (value) => (text(value).length > LONGEST ? `${text(value).slice(0, LONGEST - 1)}…` : text(value));
const length = (words) => pen.measureText(words).width;
const longest = (ticks) => Math.max(0, ...ticks.map((tick) => length(written(tick))));

// Returns the SVG parts, the scales `across` and `upwards`, the edges, and the position of each point of a mark.
export function paint({ x, y, marks, rules = [] }, width, height, zoom) {
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const xs = [...marks, ...rules].map((each) => [each.x ?? [], each.to ?? []]).flat(3);
  const ys = [...marks, ...rules].map((each) => each.y ?? []).flat();
  const right = width - RIGHT;
  const tilted = x.names && longest(x.names) + 12 > (right - 50) / x.names.length;
  const bottom = height - BOTTOM - (tilted ? longest(x.names) * Math.sin((TILT * Math.PI) / 180) : 0);
  const upwards = scaleOf(y, ys, [bottom, TOP], { pad: PAD, most: 6, span: zoom?.y });
  const left = Math.ceil(longest(upwards.ticks)) + (y.title ? 30 : 12);
  const across = scaleOf(x, xs, [left, right], { pad: PAD, most: (right - left) / 90, span: zoom?.x });
  const edges = { left, right, top: TOP, bottom };
  const row = y.names ? (BAR * (bottom - TOP)) / (zoom ? zoom.y[1] - zoom.y[0] : y.names.length) : 0;
  const placed = marks.map((mark) => place(mark, across.at, upwards.at, row));
  const inside = svg("svg", {
    x: left, y: TOP, width: right - left, height: bottom - TOP, viewBox: `${left} ${TOP} ${right - left} ${bottom - TOP}`,
    overflow: zoom ? "hidden" : "visible",
  });
  inside.append(...placed.map((each) => SHAPES[each.mark.kind](each)), ...rules.map((rule) => ruled(rule, across.at, upwards.at, edges)));
  const parts = [grid(across, upwards, edges, y), ...labels(x, y, across, upwards, edges, height, tilted), inside];
  return { parts, placed, across, upwards, ...edges };
}

// The positions of a mark's points: their centres, half widths and half height.
function place(mark, across, upwards, row) {
  const y = mark.y.map(upwards);
  if (mark.kind !== "bars") return { mark, x: mark.x.map(across), y, wide: () => 0, tall: 0 };
  const half = mark.x.map((from, i) => Math.max(0.5, (across(mark.to[i]) - across(from)) / 2));
  return { mark, x: mark.x.map((from, i) => across(from) + half[i]), y, wide: (i) => half[i], tall: row / 2 };
}

const SHAPES = {
  line({ mark, x, y }) {
    let d = "";
    let open = false;
    for (let i = 0; i < x.length; i++) {
      const known = Number.isFinite(x[i]) && Number.isFinite(y[i]);
      const [px, py] = [x[i].toFixed(1), y[i].toFixed(1)];
      if (known) d += !open ? `M${px} ${py}` : mark.stepped ? `H${px}V${py}` : `L${px} ${py}`;
      open = known;
    }
    return svg("path", { class: "line", d, stroke: mark.color, "stroke-width": mark.width });
  },

  dots({ mark, x, y }) {
    const group = svg("g", { class: "dots" });
    x.forEach((px, i) => {
      if (!Number.isFinite(px) || !Number.isFinite(y[i])) return;
      const half = of(mark.size, i) / 2;
      const tint = of(mark.color, i);
      if (mark.shape) {
        const d = mark.shape === "cross" ? `m${-half} ${-half}l${2 * half} ${2 * half}m0 ${-2 * half}l${-2 * half} ${2 * half}` : `m0 ${-half}v${2 * half}`;
        group.append(svg("path", { d: `M${px} ${y[i]}${d}`, stroke: tint, "stroke-width": 1.6 }));
      } else {
        group.append(svg("circle", { cx: px, cy: y[i], r: half, fill: tint ?? "none", stroke: of(mark.edge, i) ?? "none" }));
      }
      if (mark.words) group.append(svg("text", { x: px, y: y[i] - half - 5, "text-anchor": "middle" }, mark.words(i)));
    });
    return group;
  },

  bars({ mark, x, y, wide, tall }) {
    const group = svg("g", { class: "bars" });
    x.forEach((px, i) => {
      group.append(svg("rect", { class: "point", x: px - wide(i), y: y[i] - tall, width: 2 * wide(i), height: 2 * tall, fill: of(mark.color, i) }));
      if (length(mark.words(i)) + 6 < 2 * wide(i)) group.append(svg("text", { x: px, y: y[i] + 4, "text-anchor": "middle" }, mark.words(i)));
    });
    return group;
  },
};

function ruled({ x, y, color, dash, words }, across, upwards, { left, right, top, bottom }) {
  const group = svg("g", { class: "rule" });
  const d = x === undefined ? `M${left} ${upwards(y)}H${right}` : `M${across(x)} ${top}V${bottom}`;
  group.append(svg("path", { d, stroke: color, "stroke-dasharray": dash }));
  if (words) group.append(svg("text", { x: right, y: upwards(y) - 5, "text-anchor": "end" }, words));
  return group;
}

function grid(across, upwards, { left, right, top, bottom }, y) {
  const lines = across.ticks.map((tick) => `M${across.at(tick)} ${top}V${bottom}`);
  if (!y.names) lines.push(...upwards.ticks.map((tick) => `M${left} ${upwards.at(tick)}H${right}`));
  return svg("path", { class: "grid", d: lines.join("") });
}

function labels(x, y, across, upwards, { left, right, top, bottom }, height, tilted) {
  const below = svg("g", { class: "xtick" });
  const apart = longest(across.ticks) + 10;
  let end = -Infinity; // of the previous label: labels that would overlap it are omitted
  for (const tick of across.ticks) {
    const px = across.at(tick);
    if (!tilted && px - end < apart) continue;
    end = px;
    below.append(svg("text", tilted
      ? { transform: `translate(${px + 5} ${bottom + 15}) rotate(${-TILT})`, "text-anchor": "end" }
      : { x: px, y: bottom + 17, "text-anchor": "middle" }, written(tick)));
  }
  const beside = svg("g", { class: "ytick" });
  for (const tick of upwards.ticks) beside.append(svg("text", { x: left - 7, y: upwards.at(tick) + 4, "text-anchor": "end" }, written(tick)));
  const found = [below, beside, svg("text", { class: "xtitle", x: (left + right) / 2, y: height - 7, "text-anchor": "middle" }, x.title)];
  if (y.title) {
    const turned = `translate(14 ${(top + bottom) / 2}) rotate(-90)`;
    found.push(svg("text", { class: "ytitle", transform: turned, "text-anchor": "middle" }, y.title));
  }
  return found;
}
