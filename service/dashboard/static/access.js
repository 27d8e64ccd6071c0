// Creates keys and webhooks, and shows their secrets once.

import { $, $$, call, complain } from "./api.js";
import { refresh } from "./swap.js";

// A form that creates something: `ask` makes the request body from the fields, `tell` shows the answer.
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
    await navigator.clipboard?.writeText(input.value); // only on localhost and over HTTPS
    button.textContent = navigator.clipboard ? "Copied" : "Selected";
  });
}

makes(
  $("#add-key"),
  "/v1/keys",
  ({ name, scope, days }) => ({ name: name.value, scope: scope.value, days: days.value ? Number(days.value) : null }),
  (made) => {
    show($("#made-key"), `Copy the key ${made.name} now: it is not shown again. Every request now needs a key.`, made.key);
    $("#part-keys .empty")?.remove(); // after the first key this page needs a login
  },
);
makes(
  $("#add-webhook"),
  "/v1/webhook_endpoints",
  ({ url }) => ({ url: url.value.trim(), events: $$("[name=events]:checked", $("#add-webhook")).map((box) => box.value) }),
  (made) => show($("#made-webhook"), `Copy the signing secret of ${made.url} now: it is not shown again.`, made.secret),
);
