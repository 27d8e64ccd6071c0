// The page of one job: its charts, the selection in the table, and live updates.

import { chart } from "./chart.js";
import { curveHint, curveLabel, curveTitle } from "./curves.js";
import { parallel } from "./parallel.js";
import { colour, duration, figure, redrawAll, series } from "./plot.js";
import { goTo, onSwap, refresh } from "./swap.js";

const page = document.getElementById("job");
const API = `/v1/fine_tuning/jobs/${page.dataset.job}`;
const get = (id) => document.getElementById(id);
class Away extends Error {} // the service cannot be reached, or the reader has left

async function fetchJson(path) {
  let answer;
  let text;
  try {
    answer = await fetch(`${API}${path}`);
    text = await answer.text();
  } catch (reason) {
    throw new Away(path, { cause: reason });
  }
  if (!answer.ok) throw new Error(`${path} returned status ${answer.status}`);
  return JSON.parse(text);
}

const data = { curves: null, landscape: null, timeline: null, summaries: new Map(), states: new Map() };
const picked = () => (new URLSearchParams(location.search).get("picked") ?? "").split(",").filter(Boolean).map(Number);
const leased = new Map(); // states of trials by number, from the live stream
const running = () => [...leased].filter(([, state]) => state === "leased").map(([number]) => number);

// Learning curves ----------------------------------------------------------------------------------------------------

const CROWD = 150; // with more trials only the highlighted ones get marks
const label = (number) => `#${number} ${data.summaries.get(number) ?? ""}`;

function curves() {
  if (!data.curves || !data.landscape) return { empty: "Loading the curves …" };
  if (!data.curves.trials.length) return { empty: "No curves yet: they appear with the first training steps." };
  const chosen = picked();
  const best = data.landscape.best;
  const named = new Map(chosen.map((number, i) => [number, { color: series(i), width: 2.2 }]));
  if (best !== null && !named.has(best)) named.set(best, { color: colour("good"), width: 2.4 });
  const live = new Set(running());
  for (const number of live) if (!named.has(number)) named.set(number, { color: colour("live"), width: 1.6 });
  const others = data.curves.trials.filter((trial) => !named.has(trial.number));
  const shown = data.curves.trials.filter((trial) => named.has(trial.number));
  showLegend(shown, named);
  const faint = { numbers: [], x: [], y: [] };
  for (const { number, step, value } of others) {
    faint.x.push(...step, null);
    faint.y.push(...value, null);
    for (let i = 0; i <= step.length; i++) faint.numbers.push(number);
  }
  const tooltip = (number, step, value) => `${label(number)}\nstep ${step}: ${figure(value)}`;
  return {
    marks: [
      {
        ...faint, kind: "line", width: 1, color: colour("soft", others.length > 60 ? 0.16 : 0.3),
        says: (i) => tooltip(faint.numbers[i], faint.x[i], faint.y[i]),
      },
      ...shown.map(({ number, step, value }) => ({
        kind: "line", x: step, y: value, ...named.get(number), says: (i) => tooltip(number, step[i], value[i]),
      })),
      ...marks(named),
    ],
    x: { title: "step" },
    y: { title: curveTitle(data.curves.name), log: get("curve-log").checked },
  };
}

// The legend of the highlighted curves.
function showLegend(shown, named) {
  get("curves-named").replaceChildren(...shown.slice(0, 12).map(({ number }) =>
    key(named.get(number).color, `#${number}${number === data.landscape.best ? ` ${page.dataset.best}` : ""}`)));
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
    kind: "dots", size: 4.5, color: (i) => tint(rungs[i].number, 0.45),
    x: rungs.map((rung) => rung.step), y: rungs.map((rung) => value(at.get(rung.number), rung.step)),
    says: (i) => `${label(rungs[i].number)}\nscored at rung ${rungs[i].rung + 1}: ${figure(rungs[i].score)}`,
  }];
  for (const [kind, shape, size] of [["stopped", "cross", 6], ["paused", "bar", 9]]) {
    const those = data.curves.trials.filter(({ number, step }) =>
      marked(number) && data.states.get(number)?.startsWith(kind) && step.length);
    found.push({
      kind: "dots", shape, size, color: (i) => tint(those[i].number, 0.75),
      x: those.map((trial) => trial.step.at(-1)), y: those.map((trial) => trial.value.at(-1)),
      says: (i) => `${label(those[i].number)}\n${data.states.get(those[i].number)}`,
    });
  }
  return found;
}

// The score of each trial --------------------------------------------------------------------------------------------

function search() {
  const land = data.landscape;
  if (!land) return { empty: "Loading the trials …" };
  if (!land.number.length) return { empty: "No trial scored yet." };
  const whole = land.number.map((_, i) => i).filter((i) => land.score[i] !== null);
  const part = land.number.map((_, i) => i).filter((i) => land.score[i] === null);
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
  const points = (those, look) => ({
    kind: "dots", x: those.map((i) => land.number[i]), y: those.map((i) => land.last[i]), ...look,
    says: (k) => scored(those[k], land.last[those[k]], land.state[those[k]]),
  });
  return {
    marks: [
      { ...best, kind: "line", stepped: true, color: colour("good"), width: 1.8 },
      points(part, { size: 6.5, edge: colour("soft", 0.7) }),
      points(whole, { size: 7.5, edge: colour("sheet"), color: (k) => tinted(whole[k], colour("mark")) }),
    ],
    rules: [["base", "untuned base"], ["default", "LoRA default"]].filter(([key]) => land[key] !== null)
      .map(([key, words]) => ({ y: land[key], words, color: colour("soft", 0.8), dash: "2 3" })),
    x: { title: "trial" },
    y: { title: land.unit },
  };
}

// The colour of a design: its own if it is selected.
function tinted(i, otherwise) {
  const place = picked().indexOf(data.landscape.number[i]);
  return place < 0 ? otherwise : series(place);
}

const scored = (i, value, words) => {
  const { number, unit, score, seeds } = data.landscape;
  const mean = score[i] === null ? "" : ` (n=${seeds[i]})`;
  return `${label(number[i])}\n${words}\n${figure(value)} ${unit}${mean}`;
};

// One parameter against the score ------------------------------------------------------------------------------------

function slice() {
  const land = data.landscape;
  const axis = land?.axes.find((each) => each.axis === get("slice-axis").value);
  if (!land) return { empty: "Loading the designs …" };
  if (!axis) return { empty: "Shown once two different designs have been scored." };
  const those = land.number.map((_, i) => i).filter((i) => axis.values[i] !== null);
  const numeric = those.every((i) => typeof axis.values[i] === "number");
  const values = [...new Set(those.map((i) => axis.values[i]))];
  const log = numeric && values.length > 2 && Math.max(...values) / Math.min(...values) > 8 && Math.min(...values) > 0;
  const points = (whole) => {
    const some = those.filter((i) => (land.score[i] !== null) === whole);
    return {
      kind: "dots", x: some.map((i) => (numeric ? axis.values[i] : String(axis.values[i]))), y: some.map((i) => land.last[i]),
      says: (k) => scored(some[k], land.last[some[k]], `${axis.axis} ${axis.values[some[k]]}, ${land.state[some[k]]}`),
      ...(whole
        ? { size: 8, color: (k) => tinted(some[k], colour("mark")), edge: colour("sheet") }
        : { size: 7, edge: (k) => tinted(some[k], colour("soft", 0.7)) }),
    };
  };
  return {
    marks: [points(false), points(true)],
    x: numeric
      ? { title: axis.axis === "learning rate" ? "learning rate (× its default)" : axis.axis, log, ticks: log || values.length < 7 ? ticks(values) : null }
      : { title: axis.axis, names: values.map(String).sort() },
    y: { title: land.unit },
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

// The Pareto front of score, size and cost ---------------------------------------------------------------------------

function front() {
  const land = data.landscape;
  if (!land) return { empty: "Loading the designs …" };
  const whole = land.number.map((_, i) => i).filter((i) => land.score[i] !== null);
  if (!whole.length) return { empty: "No design has been trained to the end yet." };
  const most = Math.max(...whole.map((i) => land.parameters[i] ?? 0)) || 1;
  const points = (those, tint) => ({
    kind: "dots", x: those.map((i) => land.device_seconds[i]), y: those.map((i) => land.score[i]),
    size: (k) => 5 + 11 * Math.sqrt((land.parameters[those[k]] ?? 0) / most),
    color: (k) => tinted(those[k], tint), edge: colour("sheet"),
    says: (k) => scored(those[k], land.score[those[k]], `${parameters(land.parameters[those[k]])}, ${duration(land.device_seconds[those[k]])}`),
  });
  const on = whole.filter((i) => land.front[i]).sort((a, b) => land.device_seconds[a] - land.device_seconds[b]);
  const best = points(on, colour("mark"));
  return {
    marks: [
      { kind: "line", x: best.x, y: best.y, stepped: true, color: colour("mark", 0.45), width: 1.2 },
      points(whole.filter((i) => !land.front[i]), colour("soft", 0.35)),
      { ...best, words: (k) => `#${land.number[on[k]]}` },
    ],
    x: { title: "device-seconds of training", zero: true },
    y: { title: land.unit },
  };
}

const parameters = (count) => (count === null ? "size unknown" : `${(count / 1e6).toPrecision(3)} M parameters`);

// The timeline of the workers ----------------------------------------------------------------------------------------

const OUTCOMES = [
  ["complete", "mark", "trained to the end"], ["paused", "even", "paused at a rung"], ["running", "live", "running"],
  ["failed", "bad", "failed or lost"], ["other", "faint", "released or stopped"],
];
const outcome = (span) => {
  if (span.end === null) return "running";
  if (["failed", "infeasible", "lost"].includes(span.outcome)) return "failed";
  return ["complete", "paused"].includes(span.outcome) ? span.outcome : "other";
};

function timeline() {
  if (!data.timeline) return { empty: "Loading the timeline …" };
  const spans = data.timeline.workers.flatMap(({ worker, spans }) => spans.map((span) => ({ worker, ...span })));
  if (!spans.length) return { empty: "No worker has started a trial yet." };
  const now = Date.now() / 1000;
  const start = Math.min(...spans.map((span) => span.start));
  const end = (span) => span.end ?? now;
  const chosen = picked();
  const found = new Set(spans.map(outcome));
  get("timeline-legend").replaceChildren(...OUTCOMES.filter(([each]) => found.has(each))
    .map(([, tint, words]) => key(`var(--${tint})`, words)));
  const whole = Math.max(...spans.map(end)) - start;
  const [unit, size] = whole > 10_800 ? ["hours", 3600] : whole > 300 ? ["minutes", 60] : ["seconds", 1];
  const bars = {
    kind: "bars", x: spans.map((span) => (span.start - start) / size), to: spans.map((span) => (end(span) - start) / size),
    y: spans.map((span) => span.worker), words: (i) => `#${spans[i].number}`,
    color: (i) => {
      const place = chosen.indexOf(spans[i].number);
      return place < 0 ? colour(OUTCOMES.find(([kind]) => kind === outcome(spans[i]))[1]) : series(place);
    },
    says: (i) => {
      const { number, lease, outcome, ...span } = spans[i];
      return `${label(number)}\nlease ${lease}, ${outcome ?? "running"}, ${duration(end(span) - span.start)}`;
    },
  };
  return {
    marks: [bars],
    x: { title: `${unit} since the first lease`, zero: true },
    y: { names: data.timeline.workers.map(({ worker }) => worker).reverse() },
  };
}

// Putting it together ------------------------------------------------------------------------------------------------

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
  data.curves = await fetchJson(`/curves?name=${encodeURIComponent(name)}&points=${page.dataset.points}`);
  const select = get("curve-name");
  const names = data.curves.names.length ? data.curves.names : [name];
  if ([...select.options].map((option) => option.value).join() !== names.join()) {
    select.replaceChildren(...names.map((each) => Object.assign(new Option(curveLabel(each), each), { title: curveHint(each) })));
    select.value = name;
  }
  redraw.curves();
}

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

try {
  await Promise.all([loadLandscape(), loadCurves(), loadTimeline()]);
  page.dataset.ready = "";
} catch (reason) {
  if (!(reason instanceof Away)) throw reason;
}

// While it runs ------------------------------------------------------------------------------------------------------

// Throttles `call`: at most once per `pause` milliseconds, never twice at a time, and always once after the last request.
function throttle(call, pause) {
  let waiting = null;
  let busy = false;
  const request = () => {
    waiting ??= setTimeout(run, pause);
  };
  async function run() {
    waiting = null;
    if (busy) {
      request();
      return;
    }
    busy = true;
    try {
      await call();
    } catch (reason) {
      if (!(reason instanceof Away)) throw reason; // the stream reconnects with the service and requests it again
    } finally {
      busy = false;
    }
  }
  return request;
}

// Adds live points to the curves. Returns whether the curves must be fetched again to show them.
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
  const parts = throttle(refresh, 1200);
  const charts = throttle(() => Promise.all([loadLandscape(), loadTimeline()]), 2500);
  const lines = throttle(() => redraw.curves(), 400);
  const reload = throttle(loadCurves, 2500);
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
