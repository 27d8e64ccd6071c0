// Sends each message to two models and streams their answers.

import { $, $$, make } from "./api.js";

const form = $("#ask");
const talks = $$(".talk").map((element) => ({ element, said: [] }));
let stop = null;

// Yields the text chunks of a streamed completion, as OpenAI's API sends them.
async function* pieces(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      const text = chunk.choices?.[0]?.delta?.content;
      if (text) yield text;
    }
  }
}

const turns = (talk) => $(".turns", talk.element);
const turn = (talk, role, text) => {
  $(".empty-turn", talk.element)?.remove();
  const words = make("p", {}, text);
  turns(talk).append(make("div", { class: `turn ${role}` }, make("span", { class: "soft small" }, role), words));
  return words;
};

async function ask(talk, prompt, { temperature, max_tokens, system }, signal) {
  talk.said.push({ role: "user", content: prompt });
  turn(talk, "user", prompt);
  const words = turn(talk, "assistant", "");
  words.classList.add("writing");
  const pace = $(".pace", talk.element);
  const began = performance.now();
  const tick = setInterval(() => {
    pace.textContent = words.textContent ? "writing …" : `waiting, ${((performance.now() - began) / 1000).toFixed(0)} s; the first message loads the model`;
  }, 500);
  try {
    const messages = system ? [{ role: "system", content: system }, ...talk.said] : talk.said;
    const answer = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model: $("select", talk.element).value, messages, temperature, max_tokens, stream: true }),
      signal,
    });
    if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.error?.message ?? `The service returned status ${answer.status}.`);
    for await (const text of pieces(answer)) {
      words.append(text);
      words.scrollIntoView({ block: "nearest" });
    }
    pace.textContent = `${((performance.now() - began) / 1000).toFixed(1)} s`;
  } catch (error) {
    pace.textContent = error.name === "AbortError" ? "stopped" : "";
    if (error.name !== "AbortError") words.after(make("p", { class: "note bad", role: "alert" }, error.message));
  } finally {
    clearInterval(tick);
    words.classList.remove("writing");
    talk.said.push({ role: "assistant", content: words.textContent });
  }
}

function clear() {
  stop?.abort();
  for (const talk of talks) {
    talk.said = [];
    turns(talk).replaceChildren(make("p", { class: "soft small empty-turn" }, "No messages yet."));
    $(".pace", talk.element).textContent = "";
  }
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { prompt, temperature, max_tokens, system } = form.elements;
  const text = prompt.value.trim();
  if (!text || stop) return;
  const settings = { temperature: Number(temperature.value), max_tokens: Number(max_tokens.value), system: system.value.trim() };
  prompt.value = "";
  stop = new AbortController();
  $("#send").disabled = true;
  $("#stop").hidden = false;
  await Promise.all(talks.map((talk) => ask(talk, text, settings, stop.signal)));
  stop = null;
  $("#send").disabled = false;
  $("#stop").hidden = true;
  prompt.focus();
});
form?.elements.prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
$("#stop")?.addEventListener("click", () => stop?.abort());
$("#clear")?.addEventListener("click", clear);
for (const select of $$(".talk select")) select.addEventListener("change", clear);
