// Uploads a dataset with progress, and shows why a file was rejected.

import { $, complain } from "./api.js";

const form = $("#upload");
const file = $("#upload-file");
const button = $("button", form);

function send(chosen) {
  if (chosen.size > Number(form.dataset.limit)) {
    complain($("#problem"), new Error(`${chosen.name} is larger than the upload limit.`));
    return;
  }
  const body = new FormData();
  body.append("purpose", "fine-tune");
  body.append("file", chosen);
  const request = new XMLHttpRequest(); // fetch has no upload progress
  const progress = $("#progress");
  const busy = (on) => {
    button.disabled = on;
    progress.hidden = !on;
    button.textContent = on ? "Uploading …" : "Upload";
  };
  request.upload.addEventListener("progress", (event) => {
    progress.value = event.loaded / event.total;
    if (event.loaded === event.total) button.textContent = "Checking the rows …";
  });
  request.addEventListener("load", () => {
    busy(false);
    let found = {};
    try {
      found = JSON.parse(request.responseText);
    } catch {
      // reported below
    }
    if (request.status === 200) location.assign(`/datasets/${found.id}`);
    else complain($("#problem"), new Error(found.error?.message ?? `The service returned status ${request.status}.`));
  });
  request.addEventListener("error", () => {
    busy(false);
    complain($("#problem"), new Error("The upload failed: the service cannot be reached, or the file is too large."));
  });
  complain($("#problem"), null);
  busy(true);
  request.open("POST", "/v1/files");
  request.send(body);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send(file.files[0]);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  form.addEventListener(kind, (event) => {
    event.preventDefault();
    form.classList.toggle("dragged", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  });
}
