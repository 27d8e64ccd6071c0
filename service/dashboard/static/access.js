// Keys and webhooks: made here, with a secret that is shown once.

import { $, $$, call, complain } from "./api.js";
import { refresh } from "./swap.js";

// A form that makes something; `ask` says what of the API, `tell` what to do with what comes back.
function makes(form, path, ask, tell) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = $("button.main", form);
    button.disabled = true;
    complain($("#problem"), null);
    try {
      tell(await call("POST", path, ask(form.elements)));
      form.reset();
      await refresh();
    } catch (error) {
      complain($("#problem"), error);
    }
    button.disabled = false;
  });
}

function show(place, words, secret) {
  $("p", place).textContent = words;
  $("input", place).value = secret;
  place.hidden = false;
  place.scrollIntoView({ block: "nearest" });
  $("input", place).select();
}

for (const button of $$("[data-copy]")) {
  button.addEventListener("click", async () => {
    const input = $("input", button.parentElement);
    input.select();
    await navigator.clipboard?.writeText(input.value); // browsers have it on this machine and behind TLS alone
    button.textContent = navigator.clipboard ? "Copied" : "Selected";
  });
}

makes(
  $("#add-key"),
  "/v1/keys",
  ({ name, scope, days }) => ({ name: name.value, scope: scope.value, days: days.value ? Number(days.value) : null }),
  (made) => {
    show($("#made-key"), `The key of ${made.name} is shown this once: keep it. Every request needs a key now.`, made.key);
    $("#part-keys .empty")?.remove(); // after the first one this page is not shown again without it
  },
);
makes(
  $("#add-webhook"),
  "/v1/webhook_endpoints",
  ({ url }) => ({ url: url.value.trim(), events: $$("[name=events]:checked", $("#add-webhook")).map((box) => box.value) }),
  (made) => show($("#made-webhook"), `What is sent to ${made.url} is signed with this secret. It is shown this once: keep it.`, made.secret),
);
