// The form that adds a design: it starts from a trial's design, shows the cost of changes and queues the result.

import { $, call, complain, make } from "./api.js";
import { BOXED, members, refill, searched, title } from "./axes.js";
import { bytes, facts, millions, prices } from "./estimate.js";
import { duration } from "./plot.js";

const form = $("#design");
const { job, trial } = form.dataset;
const start = JSON.parse(form.dataset.start);
const SIZED = ["rank", "epochs", "batch_size", "learning_rate", "learning_rate_multiplier", "layers", "kv_heads", "window", "rope_factor"];
const chosen = Object.fromEntries(BOXED.map((name) => [name, new Set(name in start ? [String(start[name])] : [])]));
const typed = Object.fromEntries(SIZED.filter((name) => name in start).map((name) => [name, String(start[name])]));
const RANKED = JSON.parse(form.dataset.ranked); // the updates with a rank, and those with a placement
const PLACED = JSON.parse(form.dataset.placed);
const PATIENCE = 250;
let turn = 0;
let timer;

const update = () => [...chosen.update][0];

// The fields that differ from the starting design.
function change() {
  const found = {};
  for (const name of BOXED) {
    const value = [...chosen[name]][0];
    if (value !== undefined && value !== String(start[name])) found[name] = value;
  }
  for (const [name, text] of Object.entries(typed)) {
    const value = Number.isFinite(Number(text)) ? Number(text) : text;
    if (text !== "" && value !== start[name]) found[name] = value;
  }
  if (!RANKED.includes(update())) delete found.rank;
  if (!PLACED.includes(update())) delete found.placement;
  return found;
}

async function look() {
  const mine = ++turn;
  const asked = change();
  $("#queue").disabled = true;
  for (const [name, applies] of [["rank", RANKED.includes(update())], ["placement", PLACED.includes(update())]]) {
    const part = $(`#axis-${name}`);
    if (part) part.hidden = !applies;
  }
  try {
    const body = { job, trial };
    if (Object.keys(asked).length) body.change = asked;
    const found = await call("POST", "/v1/designs/estimate", body);
    if (mine !== turn) return;
    $("#summary").textContent = found.summary;
    facts($("#estimate"), [
      ["Time", duration(found.seconds)],
      ["Memory", bytes(found.memory_bytes)],
      ["Trainable", `${millions(found.trainable_parameters)} of ${millions(found.parameters)} parameters`],
      ["Steps", `${found.steps}, ${found.tokens} tokens`],
    ]);
    $("#prices").textContent = prices(found);
    complain($("#problem"), found.feasible ? null : new Error(`This design cannot run: ${found.why}`));
    $("#unchanged").hidden = Object.keys(asked).length > 0 || "closed" in form.dataset;
    $("#queue").disabled = !found.feasible || !Object.keys(asked).length || "closed" in form.dataset;
  } catch (error) {
    if (mine === turn) complain($("#problem"), error);
  }
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(look, PATIENCE);
}

function number(axis) {
  const input = make("input", { id: `number-${axis.name}`, value: typed[axis.name] ?? "", placeholder: axis.name in start ? "" : searched(axis) && "unchanged", title: axis.takes ?? "", inputmode: "decimal" });
  input.addEventListener("input", () => {
    typed[axis.name] = input.value;
    later();
  });
  return make("label", { class: "field", id: `axis-${axis.name}` }, make("span", {}, title(axis.name)), input);
}

async function begin() {
  const space = await call("POST", "/v1/designs/space", JSON.parse($("#space-request").textContent));
  const axes = new Map(space.axes.map((axis) => [axis.name, axis]));
  const named = BOXED.map((name) => make("div", { class: "axis", id: `axis-${name}` }, make("h3", {}, title(name)), ...members(axes.get(name), chosen[name], { single: true, changed: later })));
  const sizes = SIZED.filter((name) => axes.has(name)).map((name) => number(axes.get(name)));
  refill($("#fields"), [...named, make("div", { class: "inline" }, ...sizes)]);
  look();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  $("#queue").disabled = true;
  try {
    const added = await call("POST", `/v1/fine_tuning/jobs/${job}/trials`, { trial, change: change() });
    location.assign(`/jobs/${job}/trials/${added.number}`);
  } catch (error) {
    complain($("#problem"), error);
    $("#queue").disabled = false;
  }
});

begin().catch((error) => complain($("#problem"), error));
