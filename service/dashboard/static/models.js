// Adds a base model, which can include a download, and shows the steps meanwhile.

import { $, complain, follow } from "./api.js";

const form = $("#add-model");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = $("button", form);
  const { name, source } = form.elements;
  const adding = $("#adding");
  button.disabled = true;
  adding.hidden = false;
  complain($("#problem"), null);
  try {
    await follow("/v1/models", { name: name.value.trim(), source: source.value.trim() }, (step) => {
      $("#step").textContent = `${step} …`;
    });
    location.reload();
  } catch (error) {
    complain($("#problem"), error);
    button.disabled = false;
    adding.hidden = true;
  }
});
