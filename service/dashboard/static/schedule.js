// The form for a new schedule.

import { $, $$, call, complain, make } from "./api.js";

const form = $("#schedule");
const field = form.elements;

field.time_zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
$("#zones").append(...Intl.supportedValuesOf("timeZone").map((zone) => make("option", { value: zone })));
for (const button of $$("[data-cron]")) button.addEventListener("click", () => (field.cron.value = button.dataset.cron));

function body() {
  const repeated = JSON.parse(form.dataset.body);
  const file = field.file.value;
  const search = { ...repeated.search, trials: Number(field.trials.value) };
  if (field.minutes.value) search.device_seconds = 60 * Number(field.minutes.value);
  return {
    name: field.name.value.trim(),
    cron: field.cron.value.trim(),
    time_zone: field.time_zone.value.trim(),
    overlap: field.overlap.value,
    catch_up: field.catch_up.value,
    catch_up_seconds: 3600 * Number(field.catch_up_hours.value),
    alert_after: Number(field.alert_after.value),
    alias: field.alias.value.trim() || undefined,
    job: {
      ...repeated,
      training_file: file.startsWith("newest:") ? { newest: file.slice(7) } : file,
      model: field.model.value || undefined,
      suffix: field.suffix.value || undefined,
      search,
    },
  };
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = $("button.main", form);
  button.disabled = true;
  try {
    const made = await call("POST", "/v1/schedules", body());
    location.assign(`/schedules/${made.id}`);
  } catch (error) {
    complain($("#problem"), error);
    button.disabled = false;
  }
});
