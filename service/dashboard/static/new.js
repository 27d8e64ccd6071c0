// The form for a new job. After each change it asks the service for the legal options and the estimated cost, with the
// same body that the form submits.

import { $, $$, call, complain, make } from "./api.js";
import { BOXED, members, numbers, refill, searched, title } from "./axes.js";
import { bytes, facts, millions, prices } from "./estimate.js";
import { duration } from "./plot.js";

const form = $("#job");
const field = form.elements;
const pins = Object.fromEntries(BOXED.map((name) => [name, new Set()]));
const typed = {}; // the text of the numeric fields, by axis
const limits = {}; // the constraints of the job that the form is filled in from
const PATIENCE = 250; // milliseconds after the last change
let environments = null;
let turn = 0;
let timer;

const source = () => field.source.value;

function grader() {
  switch (field.grader.value) {
    case "": return undefined;
    case "json": return JSON.parse(field.grader_json.value);
    case "ilike": case "eq": return { type: "string_check", operation: field.grader.value };
    default: return { type: field.grader.value };
  }
}

// About how many of so many rows are trained on: the service holds out a tenth for validation and for test each, but at
// least 100, or a fifth of fewer rows.
const toTrain = (rows) => rows - 2 * Math.max(Math.round(rows / 10), Math.min(100, Math.floor(rows / 5)));

const count = (name) => (field[name].value === "" ? undefined : Number(field[name].value));

// The body of POST /v1/fine_tuning/jobs.
function body() {
  const task = { goal: field.goal.value, grader: grader() };
  if (source() === "environment") {
    task.environment = { name: field.environment.value, rows: count("environment_rows"), options: JSON.parse(field.environment_options.value || "{}") };
  }
  const pin = {};
  for (const [name, values] of Object.entries(pins)) if (values.size) pin[name] = [...values];
  for (const [name, text] of Object.entries(typed)) if (numbers(text).length) pin[name] = numbers(text);
  const minutes = count("minutes");
  const search = {
    trials: count("trials"),
    device_seconds: minutes ? minutes * 60 : undefined,
    deadline: field.deadline.value ? new Date(field.deadline.value).toISOString() : undefined,
    objective: field.objective.value,
    finalists: count("finalists"),
    confirmations: count("confirmations"),
    early_finish: field.early_finish.checked,
    memory: field.remember.checked,
    pin,
  };
  const memory = count("memory");
  return {
    training_file: source() === "file" ? field.training_file.value : undefined,
    validation_file: (source() === "file" && field.validation_file.value) || undefined,
    task,
    search,
    constraints: { ...limits, memory_bytes: memory ? Math.round(memory * 1e9) : undefined },
    suffix: field.suffix.value || undefined,
    seed: count("seed"),
  };
}

const chosen = () => (source() === "file" ? field.training_file.value : field.environment.value);

function show(space) {
  const axes = new Map(space.axes.map((axis) => [axis.name, axis]));
  for (const name of BOXED) {
    const axis = axes.get(name);
    const legal = new Set(axis.choices.filter((choice) => choice.legal).map((choice) => String(choice.value)));
    for (const value of pins[name]) if (!legal.has(value)) pins[name].delete(value);
    refill($(`#axis-${name}`), [make("h3", {}, title(name)), ...members(axis, pins[name], { changed: later })]);
  }
  const place = $("#axis-numbers");
  const shown = space.axes.filter((axis) => !BOXED.includes(axis.name) && (axis.low !== null || axis.choices.length || typed[axis.name] || axis.name === "learning_rate"));
  if (space.problem && place.children.length) return; // keep the fields, so that the reader can correct them
  refill(place, shown.map((axis) => {
    const input = make("input", { id: `number-${axis.name}`, value: typed[axis.name] ?? "", placeholder: axis.pinned ? "" : searched(axis), title: axis.takes ?? "", inputmode: "decimal" });
    input.addEventListener("input", () => {
      typed[axis.name] = input.value;
      later();
    });
    return make("label", { class: "field" }, make("span", {}, title(axis.name)), input);
  }));
}

function cost(space) {
  const workers = Math.max(1, space.workers);
  const estimate = space.default;
  const tried = space.axes.find((axis) => axis.name === "algorithm").choices.filter((choice) => choice.searched).length;
  const updates = space.axes.find((axis) => axis.name === "update").choices.filter((choice) => choice.searched).length;
  const words = space.problem
    ? ""
    : `${space.rows} training rows (${space.kind}). Searches ${tried} ${tried === 1 ? "recipe" : "recipes"} × ${updates} weight ${updates === 1 ? "update" : "updates"}.`;
  $("#costs-words").textContent = words;
  facts($("#costs-facts"), estimate && !space.problem ? [
    ["Total", `about ${duration(space.device_seconds)} of device time`],
    ["Wall-clock time", space.workers ? `about ${duration(space.device_seconds / workers)} on ${space.workers} ${space.workers === 1 ? "worker" : "workers"}` : "no worker is connected yet"],
    ["Equivalent to", `${space.trainings.toPrecision(3)} full training runs`],
    ["LoRA default", `${duration(estimate.seconds)}, ${bytes(estimate.memory_bytes)}, ${millions(estimate.trainable_parameters)} of ${millions(estimate.parameters)} parameters`],
    estimate.feasible ? null : ["Does not fit", estimate.why],
  ] : []);
  $("#prices").textContent = estimate && !space.problem ? prices(estimate) : "";
  $("#warnings").textContent = space.warnings.join(" ");
  $("#warnings").hidden = !space.warnings.length;
  if (!estimate && !space.problem) $("#costs-words").textContent += " The cost can be estimated only after the environment has generated its rows.";
}

async function look() {
  const mine = ++turn;
  $("#submit").disabled = true;
  if (!chosen()) {
    $("#costs-words").textContent = "Choose a dataset to see the estimated cost.";
    facts($("#costs-facts"), []);
    return;
  }
  $("#costs").setAttribute("aria-busy", "true");
  try {
    const asked = body();
    if (source() === "environment") Object.assign(asked, { kind: field.environment.value.startsWith("tools/") ? "chat" : "pairs", rows: toTrain(asked.task.environment.rows) });
    const space = await call("POST", "/v1/designs/space", asked);
    if (mine !== turn) return;
    show(space);
    cost(space);
    complain($("#problem"), space.problem);
    $("#submit").disabled = Boolean(space.problem);
  } catch (error) {
    if (mine !== turn) return;
    complain($("#problem"), error instanceof SyntaxError ? new Error(`Invalid JSON: ${error.message}`) : error);
  } finally {
    if (mine === turn) $("#costs").setAttribute("aria-busy", "false");
  }
}

function later() {
  clearTimeout(timer);
  $("#submit").disabled = true;
  timer = setTimeout(look, PATIENCE);
}

async function offerEnvironments() {
  if (environments) return;
  environments = (await call("GET", "/v1/environments")).data;
  field.environment.replaceChildren(make("option", { value: "" }, "choose …"), ...environments.map(({ name }) => make("option", { value: name }, name)));
}

function describeEnvironment() {
  const found = environments?.find(({ name }) => name === field.environment.value);
  const options = Object.entries(found?.options ?? {}).map(([name, schema]) => (schema.default === undefined ? name : `${name} (${JSON.stringify(schema.default)})`));
  $("#environment-words").textContent = found ? `${found.summary}${options.length ? ` Options: ${options.join(", ")}.` : ""}` : "";
}

form.addEventListener("input", async (event) => {
  if (event.target.name === "source") {
    for (const part of $$("[data-source]")) part.hidden = part.dataset.source !== source();
    if (source() === "environment") {
      try {
        await offerEnvironments();
      } catch (error) {
        complain($("#problem"), error);
      }
    }
  }
  $("#grader-own").hidden = field.grader.value !== "json";
  describeEnvironment();
  if (event.target.closest("fieldset") && !["suffix", "tags", "notes"].includes(event.target.name) && !event.target.closest(".axis, #axis-numbers")) later();
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  $("#submit").disabled = true;
  $("#submit").textContent = "Starting …";
  try {
    const job = await call("POST", "/v1/fine_tuning/jobs", body());
    const tags = field.tags.value.split(",").map((tag) => tag.trim()).filter(Boolean);
    if (tags.length || field.notes.value) await call("PATCH", `/v1/fine_tuning/jobs/${job.id}`, { notes: field.notes.value, tags });
    location.assign(`/jobs/${job.id}`);
  } catch (error) {
    complain($("#problem"), error);
    $("#submit").disabled = false;
    $("#submit").textContent = "Start the search";
  }
});

// Fills in the form from an earlier job.
async function prefill({ task, search, pin, constraints, suffix, validation_file }) {
  for (const name of ["trials", "finalists", "confirmations"]) field[name].value = search[name];
  if (search.device_seconds) field.minutes.value = search.device_seconds / 60;
  field.objective.value = search.objective;
  field.early_finish.checked = search.early_finish;
  field.remember.checked = search.memory;
  field.goal.value = task.goal ?? "auto";
  field.suffix.value = suffix ?? "";
  field.validation_file.value = validation_file ?? "";
  if (task.grader) {
    field.grader.value = "json";
    field.grader_json.value = JSON.stringify(task.grader, null, 2);
    $("#grader-own").hidden = false;
  }
  for (const [name, values] of Object.entries(pin)) {
    if (BOXED.includes(name)) for (const value of values) pins[name].add(String(value));
    else {
      typed[name] = values.join(", ");
      $("#finer").open = true;
    }
  }
  if (constraints.memory_bytes) field.memory.value = constraints.memory_bytes / 1e9;
  Object.assign(limits, constraints);
  if (task.environment) {
    field.source.value = "environment";
    for (const part of $$("[data-source]")) part.hidden = part.dataset.source !== "environment";
    await offerEnvironments();
    field.environment.value = task.environment.name;
    field.environment_rows.value = task.environment.rows ?? 256;
    field.environment_options.value = JSON.stringify(task.environment.options ?? {});
    describeEnvironment();
  }
}

const before = $("#prefilled");
if (before) await prefill(JSON.parse(before.textContent));
look();
