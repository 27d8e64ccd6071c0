// The page of one job: its charts, what is chosen in the table, and what happens while it runs.

import { chart, colour, duration, figure, redrawAll, scale, series } from "./plot.js";
import { goTo, onSwap, refresh } from "./swap.js";
import { parallel } from "./parallel.js";

const page = document.getElementById("job");
const API = `/v1/fine_tuning/jobs/${page.dataset.job}`;
const get = (id) => document.getElementById(id);
class Away extends Error {} // the service does not answer now, or the reader has left

async function fetchJson(path) {
  let answer;
  let text;
  try {
    answer = await fetch(`${API}${path}`);
    text = await answer.text();
  } catch (reason) {
    throw new Away(path, { cause: reason });
  }
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}`);
  return JSON.parse(text);
}

const data = { curves: null, landscape: null, timeline: null, summaries: new Map(), states: new Map() };
const picked = () => (new URLSearchParams(location.search).get("picked") ?? "").split(",").filter(Boolean).map(Number);
const leased = new Map(); // states of trials by number, as far as the stream has told
const running = () => [...leased].filter(([, state]) => state === "leased").map(([number]) => number);

// Learning curves ---------------------------------------------------------------------------------------------------

const CROWD = 150; // of more trials only those that stand out carry marks
const label = (number) => `<b>#${number}</b> ${data.summaries.get(number) ?? ""}`;

function curves() {
  if (!data.curves || !data.landscape) return { empty: "Loading the curves …" };
  if (!data.curves.trials.length) return { empty: "No curve yet: the first points come with the first training steps." };
  const chosen = picked();
  const best = data.landscape.best;
  const named = new Map(chosen.map((number, i) => [number, { color: series(i), width: 2.2 }]));
  if (best !== null && !named.has(best)) named.set(best, { color: colour("good"), width: 2.4 });
  const live = new Set(running());
  for (const number of live) if (!named.has(number)) named.set(number, { color: colour("live"), width: 1.6 });
  const others = data.curves.trials.filter((trial) => !named.has(trial.number));
  const shown = data.curves.trials.filter((trial) => named.has(trial.number));
  tell(shown, named);
  const hover = "%{text}<br>step %{x}: %{y:.4g}<extra></extra>";
  const faint = { x: [], y: [], text: [] };
  for (const trial of others) {
    faint.x.push(...trial.step, null);
    faint.y.push(...trial.value, null);
    const words = label(trial.number);
    for (let i = 0; i <= trial.step.length; i++) faint.text.push(words);
  }
  const traces = [
    { ...faint, mode: "lines", hovertemplate: hover, line: { color: colour("soft", others.length > 60 ? 0.16 : 0.3), width: 1 } },
    ...shown.map((trial) => ({
      x: trial.step, y: trial.value, text: trial.step.map(() => label(trial.number)), mode: "lines",
      hovertemplate: hover, line: named.get(trial.number), name: `#${trial.number}`,
    })),
    ...marks(named),
  ];
  return {
    traces,
    layout: {
      x: { title: "step" },
      y: { title: data.curves.name.replaceAll("_", " "), type: get("curve-log").checked ? "log" : "linear", nticks: 6 },
    },
  };
}

// The curves that stand out, by name.
function tell(shown, named) {
  get("curves-named").replaceChildren(...shown.slice(0, 12).map(({ number }) =>
    key(named.get(number).color, `#${number}${number === data.landscape.best ? " best" : ""}`)));
}

function key(tint, words) {
  const item = document.createElement("span");
  const dot = Object.assign(document.createElement("i"), { className: "key dot" });
  dot.style.setProperty("--tint", tint);
  item.append(dot, ` ${words}`);
  return item;
}

function marks(named) {
  const at = new Map(data.curves.trials.map((trial) => [trial.number, trial]));
  const value = (trial, step) => {
    let i = trial.step.findIndex((each) => each >= step);
    if (i < 0) i = trial.step.length - 1;
    return trial.value[i];
  };
  const tint = (number, faint) => named.get(number)?.color ?? colour("soft", faint);
  const marked = (number) => named.has(number) || data.curves.trials.length <= CROWD;
  const rungs = data.curves.rungs.filter((rung) => marked(rung.number) && at.get(rung.number)?.step.length);
  const found = [{
    x: rungs.map((rung) => rung.step), y: rungs.map((rung) => value(at.get(rung.number), rung.step)),
    text: rungs.map((rung) => `${label(rung.number)}<br>scored at rung ${rung.rung + 1}: ${figure(rung.score)}`),
    mode: "markers", hovertemplate: "%{text}<extra></extra>",
    marker: { size: 4.5, color: rungs.map((rung) => tint(rung.number, 0.45)) },
  }];
  const state = data.states;
  for (const [kind, symbol] of [["stopped", "x-thin"], ["paused", "line-ns"]]) {
    const those = data.curves.trials.filter((trial) =>
      marked(trial.number) && state.get(trial.number)?.startsWith(kind) && trial.step.length);
    found.push({
      x: those.map((trial) => trial.step.at(-1)), y: those.map((trial) => trial.value.at(-1)), mode: "markers",
      text: those.map((trial) => `${label(trial.number)}<br>${state.get(trial.number)}`),
      hovertemplate: "%{text}<extra></extra>",
      marker: {
        symbol, size: kind === "stopped" ? 6 : 9,
        line: { width: 1.6, color: those.map((trial) => tint(trial.number, 0.75)) },
      },
    });
  }
  return found;
}

// The search, trial by trial ----------------------------------------------------------------------------------------

function search() {
  const land = data.landscape;
  if (!land) return { empty: "Loading the trials …" };
  if (!land.number.length) return { empty: "No trial has been scored yet." };
  const whole = land.number.map((_, i) => i).filter((i) => land.score[i] !== null);
  const part = land.number.map((_, i) => i).filter((i) => land.score[i] === null);
  const chosen = picked();
  const better = land.lower_is_better ? Math.min : Math.max;
  const best = { x: [], y: [] };
  let sofar = null;
  for (const i of whole) {
    sofar = sofar === null ? land.score[i] : better(sofar, land.score[i]);
    best.x.push(land.number[i]);
    best.y.push(sofar);
  }
  if (best.x.length) {
    best.x.push(Math.max(...land.number));
    best.y.push(sofar);
  }
  const dot = (i) => (chosen.includes(land.number[i]) ? series(chosen.indexOf(land.number[i])) : colour("mark"));
  const points = (those, marker) => ({
    x: those.map((i) => land.number[i]), y: those.map((i) => land.last[i]), mode: "markers", marker,
    text: those.map((i) => `${label(land.number[i])}<br>${land.state[i]}`),
    customdata: those.map((i) => land.number[i]),
    hovertemplate: `%{text}<br>%{y:.4g} ${land.unit}<extra></extra>`,
  });
  return {
    traces: [
      { ...best, mode: "lines", line: { color: colour("good"), width: 1.8, shape: "hv" }, hoverinfo: "skip" },
      points(part, { size: 6.5, color: "rgba(0,0,0,0)", line: { width: 1.2, color: colour("soft", 0.7) } }),
      points(whole, { size: 7.5, color: chosen.length ? whole.map(dot) : colour("mark"), line: { width: 1, color: colour("sheet") } }),
    ],
    layout: {
      x: { title: "trial" },
      y: { title: land.unit, nticks: 6 },
      ...yardsticks(land),
    },
  };
}

function yardsticks(land) {
  const lines = [["base", "untuned base"], ["default", "LoRA default"]].filter(([key]) => land[key] !== null);
  return {
    shapes: lines.map(([key]) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: land[key], y1: land[key],
      line: { color: colour("soft", 0.8), width: 1, dash: "dot" },
    })),
    annotations: lines.map(([key, words]) => ({
      text: words, xref: "paper", x: 1, y: land[key], showarrow: false, xanchor: "right", yanchor: "bottom",
      font: { size: 11.5, color: colour("soft") },
    })),
  };
}

// One axis against the score ----------------------------------------------------------------------------------------

function slice() {
  const land = data.landscape;
  const axis = land?.axes.find((each) => each.axis === get("slice-axis").value);
  if (!land) return { empty: "Loading the designs …" };
  if (!axis) return { empty: "No two designs differ yet." };
  const those = land.number.map((_, i) => i).filter((i) => axis.values[i] !== null);
  const numeric = those.every((i) => typeof axis.values[i] === "number");
  const values = [...new Set(those.map((i) => axis.values[i]))];
  const log = numeric && values.length > 2 && Math.max(...values) / Math.min(...values) > 8 && Math.min(...values) > 0;
  const chosen = picked();
  const trace = (whole) => {
    const some = those.filter((i) => (land.score[i] !== null) === whole);
    const tints = some.map((i) =>
      chosen.includes(land.number[i]) ? series(chosen.indexOf(land.number[i])) : whole ? colour("mark") : colour("soft", 0.7));
    return {
      x: some.map((i) => (numeric ? axis.values[i] : String(axis.values[i]))), y: some.map((i) => land.last[i]),
      text: some.map((i) => `${label(land.number[i])}<br>${land.state[i]}`), mode: "markers",
      hovertemplate: `%{text}<br>${axis.axis} %{x}: %{y:.4g} ${land.unit}<extra></extra>`,
      marker: whole
        ? { size: 8, color: tints, line: { width: 1, color: colour("sheet") } }
        : { size: 7, color: "rgba(0,0,0,0)", line: { width: 1.2, color: tints } },
    };
  };
  return {
    traces: [trace(false), trace(true)],
    layout: {
      x: numeric
        ? { title: axis.axis, type: log ? "log" : "linear", ...(log || values.length < 7 ? { tickvals: ticks(values), ticktext: ticks(values).map(String) } : {}) }
        : { title: axis.axis, type: "category", categoryorder: "category ascending" },
      y: { title: land.unit, nticks: 6 },
    },
  };
}

const ticks = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const every = Math.ceil(sorted.length / 7);
  return sorted.filter((_, i) => i % every === 0);
};

function offerAxes() {
  const select = get("slice-axis");
  const varied = data.landscape.axes.filter((axis) => new Set(axis.values.filter((v) => v !== null)).size > 1);
  const before = select.value;
  const best = [...varied].sort((a, b) => (b.share ?? 0) - (a.share ?? 0))[0]?.axis;
  select.replaceChildren(...varied.map((axis) => new Option(axis.axis, axis.axis)));
  select.value = varied.some((axis) => axis.axis === before) ? before : best ?? "";
}

// What is not beaten in quality, size and cost ----------------------------------------------------------------------

function front() {
  const land = data.landscape;
  if (!land) return { empty: "Loading the designs …" };
  const whole = land.number.map((_, i) => i).filter((i) => land.score[i] !== null);
  if (!whole.length) return { empty: "No design has been trained to its end yet." };
  const most = Math.max(...whole.map((i) => land.parameters[i] ?? 0)) || 1;
  const chosen = picked();
  const trace = (those, tint) => ({
    x: those.map((i) => land.device_seconds[i]), y: those.map((i) => land.score[i]), mode: "markers",
    text: those.map((i) => `${label(land.number[i])}<br>${parameters(land.parameters[i])}, ${duration(land.device_seconds[i])}`),
    hovertemplate: `%{text}<br>%{y:.4g} ${land.unit}<extra></extra>`,
    marker: {
      size: those.map((i) => 5 + 11 * Math.sqrt((land.parameters[i] ?? 0) / most)),
      color: those.map((i) => (chosen.includes(land.number[i]) ? series(chosen.indexOf(land.number[i])) : tint)),
      line: { width: 1, color: colour("sheet") },
    },
  });
  const on = whole.filter((i) => land.front[i]).sort((a, b) => land.device_seconds[a] - land.device_seconds[b]);
  return {
    traces: [
      {
        x: on.map((i) => land.device_seconds[i]), y: on.map((i) => land.score[i]), mode: "lines", hoverinfo: "skip",
        line: { color: colour("mark", 0.45), width: 1.2, shape: "hv" },
      },
      trace(whole.filter((i) => !land.front[i]), colour("soft", 0.35)),
      trace(on, colour("mark")),
    ],
    layout: {
      x: { title: "device-seconds of the training", rangemode: "tozero" },
      y: { title: land.unit, nticks: 6 },
      annotations: on.map((i) => ({
        x: land.device_seconds[i], y: land.score[i], text: `#${land.number[i]}`, showarrow: false, yshift: 13,
        font: { size: 11.5, color: colour("mark") },
      })),
    },
  };
}

const parameters = (count) => (count === null ? "size unknown" : `${(count / 1e6).toPrecision(3)} M parameters`);

// Who trained what when ---------------------------------------------------------------------------------------------

const OUTCOMES = [
  ["complete", "mark", "trained to its end"], ["paused", "even", "paused at a rung"], ["running", "live", "running"],
  ["failed", "bad", "failed or lost"], ["other", "faint", "given back, or stopped"],
];
const outcome = (span) => {
  if (span.end === null) return "running";
  if (["failed", "infeasible", "lost"].includes(span.outcome)) return "failed";
  return ["complete", "paused"].includes(span.outcome) ? span.outcome : "other";
};

function timeline() {
  if (!data.timeline) return { empty: "Loading the timeline …" };
  const spans = data.timeline.workers.flatMap(({ worker, spans }) => spans.map((span) => ({ worker, ...span })));
  if (!spans.length) return { empty: "No worker has taken a trial yet." };
  const now = Date.now() / 1000;
  const start = Math.min(...spans.map((span) => span.start));
  const end = (span) => span.end ?? now;
  const chosen = picked();
  const found = new Set(spans.map(outcome));
  get("timeline-legend").replaceChildren(...OUTCOMES.filter(([each]) => found.has(each))
    .map(([, tint, words]) => key(`var(--${tint})`, words)));
  const whole = Math.max(...spans.map(end)) - start;
  const [unit, size] = whole > 10_800 ? ["hours", 3600] : whole > 300 ? ["minutes", 60] : ["seconds", 1];
  const traces = OUTCOMES.map(([kind, tint]) => {
    const those = spans.filter((span) => outcome(span) === kind);
    return {
      type: "bar", orientation: "h", y: those.map((span) => span.worker), base: those.map((span) => (span.start - start) / size),
      x: those.map((span) => (end(span) - span.start) / size), width: 0.55,
      text: those.map((span) => `#${span.number}`), textposition: "inside", insidetextanchor: "middle", textangle: 0,
      constraintext: "inside", textfont: { size: 11, color: colour("sheet") },
      customdata: those.map((span) => `${label(span.number)}<br>lease ${span.lease}, ${span.outcome ?? "running"}, ${duration(end(span) - span.start)}`),
      hovertemplate: "%{customdata}<extra></extra>",
      marker: {
        color: those.map((span) => (chosen.includes(span.number) ? series(chosen.indexOf(span.number)) : colour(tint))),
        line: { width: 1, color: colour("sheet") },
      },
    };
  });
  return {
    traces,
    layout: {
      barmode: "overlay",
      uniformtext: { minsize: 9, mode: "hide" },
      x: { title: `${unit} since the first lease`, rangemode: "tozero" },
      y: { autorange: "reversed", type: "category", gridcolor: "rgba(0,0,0,0)" },
    },
  };
}

// Putting it together -----------------------------------------------------------------------------------------------

const redraw = {
  curves: chart(get("chart-curves"), curves),
  search: chart(get("chart-search"), search),
  slice: chart(get("chart-slice"), slice),
  front: chart(get("chart-front"), front),
  timeline: chart(get("chart-timeline"), timeline),
};
const axes = parallel(get("chart-parallel"), {
  count: get("parallel-count"), clear: get("parallel-clear"), pick: get("parallel-pick"),
  choose: (numbers) => choose(numbers),
});

function choose(numbers) {
  const query = new URLSearchParams(location.search);
  query.set("picked", numbers.slice(0, 8).join(","));
  query.delete("page");
  goTo(`${location.pathname}?${query}`, "part-leaderboard");
}

let shown = picked().join();
onSwap(() => {
  if (picked().join() === shown) return;
  shown = picked().join();
  redrawAll();
  if (data.landscape) axes.show(data.landscape, picked());
});

async function loadCurves() {
  const name = get("curve-name").value;
  data.curves = await fetchJson(`/curves?name=${encodeURIComponent(name)}&points=${budget()}`);
  const select = get("curve-name");
  const names = data.curves.names.length ? data.curves.names : [name];
  if ([...select.options].map((option) => option.value).join() !== names.join()) {
    select.replaceChildren(...names.map((each) => new Option(each.replaceAll("_", " "), each)));
    select.value = name;
  }
  redraw.curves();
}

// As many points a curve as can be told apart: of many curves fewer.
const budget = () => Math.round(Math.min(120, Math.max(40, 20_000 / page.dataset.trials)));

async function loadLandscape() {
  const land = await fetchJson("/landscape");
  data.landscape = land;
  data.summaries = new Map(land.number.map((number, i) => [number, land.summary[i]]));
  data.states = new Map(land.number.map((number, i) => [number, land.state[i]]));
  offerAxes();
  redraw.curves();
  redraw.search();
  redraw.slice();
  redraw.front();
  axes.show(data.landscape, picked());
}

async function loadTimeline() {
  data.timeline = await fetchJson("/timeline");
  redraw.timeline();
}

get("curve-name").addEventListener("change", loadCurves);
get("curve-log").addEventListener("change", () => redraw.curves());
get("slice-axis").addEventListener("change", () => redraw.slice());
document.addEventListener("click", (event) => {
  const axis = event.target.closest("[data-slice]")?.dataset.slice;
  if (!axis) return;
  get("slice-axis").value = axis;
  redraw.slice();
});
document.addEventListener("luthier:theme", () => data.landscape && axes.show(data.landscape, picked()));

try {
  await Promise.all([loadLandscape(), loadCurves(), loadTimeline()]);
  page.dataset.ready = "";
} catch (reason) {
  if (!(reason instanceof Away)) throw reason;
}

// While it runs -----------------------------------------------------------------------------------------------------

// At most once in so many milliseconds and never twice at a time, but always once more after the last wish for it.
function calmly(call, pause) {
  let waiting = null;
  let busy = false;
  const wish = () => {
    waiting ??= setTimeout(run, pause);
  };
  async function run() {
    waiting = null;
    if (busy) {
      wish();
      return;
    }
    busy = true;
    try {
      await call();
    } catch (reason) {
      if (!(reason instanceof Away)) throw reason; // the stream comes back with the service, and wishes again
    } finally {
      busy = false;
    }
  }
  return wish;
}

// Whether the curves have to be fetched anew to show the points.
function append({ number, points }) {
  if (!data.curves) return true;
  let trial = data.curves.trials.find((each) => each.number === number);
  if (!trial) {
    trial = { number, step: [], value: [] };
    data.curves.trials.push(trial);
    data.curves.trials.sort((a, b) => a.number - b.number);
  }
  for (const [name, stage, step, value] of points) {
    if (!data.curves.names.includes(name)) data.curves.names.push(name);
    if (name !== data.curves.name || stage > 0 || step <= (trial.step.at(-1) ?? -1)) continue;
    trial.step.push(step);
    trial.value.push(value);
  }
  return points.some(([, stage]) => stage > 0);
}

if (page.dataset.live !== undefined) {
  const parts = calmly(refresh, 1200);
  const charts = calmly(() => Promise.all([loadLandscape(), loadTimeline()]), 2500);
  const lines = calmly(() => redraw.curves(), 400);
  const reload = calmly(loadCurves, 2500);
  const after = page.dataset.lastEvent ? `?after=${page.dataset.lastEvent}` : "";
  const source = new EventSource(`${API}/events/stream${after}`);
  source.addEventListener("points", ({ data: text }) => (append(JSON.parse(text)) ? reload() : lines()));
  source.addEventListener("trial", ({ data: text }) => {
    const trial = JSON.parse(text);
    leased.set(trial.number, trial.state);
    parts();
    charts();
    lines();
  });
  source.addEventListener("event", parts);
  source.addEventListener("job", parts);
  source.addEventListener("end", () => {
    source.close();
    delete page.dataset.live;
    parts();
    charts();
    reload();
  });
  addEventListener("pagehide", () => source.close());
}
