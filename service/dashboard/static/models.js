// Adds a base model, which can include a download.

import { $, call, complain } from "./api.js";

const form = $("#add-model");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = $("button", form);
  const { name, source } = form.elements;
  button.disabled = true;
  $("#adding").hidden = false;
  complain($("#problem"), null);
  try {
    await call("POST", "/v1/models", { name: name.value.trim(), source: source.value.trim() });
    location.reload();
  } catch (error) {
    complain($("#problem"), error);
    button.disabled = false;
    $("#adding").hidden = true;
  }
});
