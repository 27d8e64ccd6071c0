// Saves the notes and tags of a job.

import { $, call, complain } from "./api.js";

const form = $("#notes");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { tags, notes } = form.elements;
  try {
    await call("PATCH", form.dataset.api, { notes: notes.value, tags: tags.value.split(",").map((tag) => tag.trim()).filter(Boolean) });
    location.reload();
  } catch (error) {
    complain($("#problem"), error);
  }
});
