// The page of one trial: its curves, updated while it runs.

import { call, make } from "./api.js";
import { chart } from "./chart.js";
import { curveHint, curveLabel, curvesOf, curveTitle } from "./curves.js";
import { colour, figure, series } from "./plot.js";
import { onSwap, refresh } from "./swap.js";

const page = document.getElementById("trial");
const LIVE_SECONDS = 3;
const MOST = 1500; // points of a curve that are drawn
const FEW = 20; // curves with at most this many points show each point
const best = JSON.parse(page.dataset.best); // by stage; null where the last step is the best one
let points = null;
let live = "live" in page.dataset;

// Steps count from 1 in each stage; the curves show the stages in sequence.
function curves() {
  const last = new Map();
  for (const { stage, step } of points) last.set(stage, Math.max(last.get(stage) ?? 0, step));
  const begin = new Map();
  let sum = 0;
  for (const stage of [...last.keys()].sort((a, b) => a - b)) {
    begin.set(stage, sum);
    sum += last.get(stage);
  }
  const found = new Map();
  for (const { stage, step, name, value } of points) {
    const curve = found.get(name) ?? { x: [], y: [] };
    curve.x.push(begin.get(stage) + step);
    curve.y.push(value);
    found.set(name, curve);
  }
  const parts = [...begin.values()].filter((at) => at > 0);
  const kept = [...begin].filter(([stage]) => best[stage]).map(([stage, at]) => at + best[stage]);
  return { found, parts, kept };
}

function thin({ x, y }) {
  const every = Math.ceil(x.length / MOST);
  const kept = (_, i) => i % every === 0 || i === x.length - 1;
  return every > 1 ? { x: x.filter(kept), y: y.filter(kept) } : { x, y };
}

const rules = (parts, kept = []) => [
  ...parts.map((x) => ({ x, color: colour("faint"), dash: "6 4" })),
  ...kept.map((x) => ({ x, color: colour("brand") })),
];
const says = ({ x, y }) => (i) => `step ${x[i]}: ${figure(y[i])}`;

function loss() {
  if (!points) return { empty: "Loading the curves …" };
  const { found, parts, kept } = curves();
  const there = (split) => curvesOf("loss", split).filter(({ name }) => found.has(name));
  const trained = there("training");
  if (!trained.length) return { empty: live ? "No points yet: they appear with the first training steps." : "No curve was recorded." };
  const marks = trained.map(({ name }) => {
    const curve = thin(found.get(name));
    return { ...curve, kind: "line", color: colour("mark"), width: 1.4, says: says(curve) };
  });
  for (const { name, label } of there("validation")) {
    const held = found.get(name);
    marks.push({ ...held, kind: "dots", size: 9, color: colour("brand"), edge: colour("sheet"), says: (i) => `${label}, ${says(held)(i)}` });
  }
  return { marks, rules: rules(parts, kept), x: { title: "step" }, y: {} };
}

function other() {
  if (!points) return { empty: "Loading the curves …" };
  const name = select.value;
  const { found, parts } = curves();
  if (!found.has(name)) return { empty: live ? "No other curve yet." : "No other curve." };
  const curve = thin(found.get(name));
  const marks = [{ ...curve, kind: "line", color: series(0), width: 1.4, says: says(curve) }];
  if (curve.x.length <= FEW) marks.push({ ...curve, kind: "dots", size: 6, color: series(0) });
  return { marks, rules: rules(parts), x: { title: "step" }, y: { title: curveTitle(name) } };
}

const select = document.getElementById("curve-name");
let draw = [];
if (select) {
  draw = [chart(document.getElementById("chart-loss"), loss), chart(document.getElementById("chart-other"), other)];
  select.addEventListener("change", () => draw[1]());
}

async function load() {
  if (!select) return;
  points = (await call("GET", page.dataset.points)).data;
  const lines = curvesOf("loss", "training").map(({ name }) => name);
  const names = [...new Set(points.map((point) => point.name))].filter((name) => !lines.includes(name)).sort();
  const before = select.value;
  select.replaceChildren(...names.map((name) => make("option", { value: name, title: curveHint(name), selected: name === before }, curveLabel(name))));
  select.closest("label").hidden = !names.length;
  for (const again of draw) again();
}

async function follow() {
  if (!document.hidden) {
    try {
      await refresh();
      await load();
    } catch {
      // the service cannot be reached: try again next time
    }
  }
  if (live) setTimeout(follow, LIVE_SECONDS * 1000);
}
// After the trial has ended, one last refresh shows its results.
onSwap(() => {
  live = !document.querySelector("#part-head .state.complete, #part-head .state.failed, #part-head .state.cancelled, #part-head .state.pruned, #part-head .state.infeasible");
});
load();
if (live) setTimeout(follow, LIVE_SECONDS * 1000);
