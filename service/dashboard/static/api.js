// Calls to the API, and buttons that make them.

export class ApiError extends Error {
  constructor(message, param) {
    super(message);
    this.param = param;
  }
}

// Returns the answer's JSON. Throws ApiError with the service's message.
export async function call(method, path, body) {
  const headers = body === undefined || body instanceof FormData ? {} : { "content-type": "application/json" };
  return found(await ask(path, {
    method,
    headers,
    body: body === undefined || body instanceof FormData ? body : JSON.stringify(body),
  }));
}

// Posts, and calls `told` with each step that the service streams. Throws ApiError with the service's message.
export async function follow(path, body, told) {
  const headers = { "content-type": "application/json", accept: "text/event-stream" };
  const answer = await ask(path, { method: "POST", headers, body: JSON.stringify(body) });
  if (!answer.ok) return found(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    if (done) throw new ApiError("The service ended the connection early. Try it again.");
    const lines = (text + value).split(/\r?\n/);
    text = lines.pop();
    for (const line of lines.filter((each) => each.startsWith("data: "))) {
      const news = JSON.parse(line.slice("data: ".length));
      if (news.error) throw new ApiError(news.error.message, news.error.param);
      if (news.step === undefined) return news;
      told(news.step);
    }
  }
}

async function ask(path, options) {
  try {
    return await fetch(path, options);
  } catch {
    throw new ApiError("The service cannot be reached. Is it still running?");
  }
}

async function found(answer) {
  const text = await answer.text();
  let value = null;
  try {
    value = text ? JSON.parse(text) : null;
  } catch {
    throw new ApiError(`The service returned status ${answer.status} without JSON. Check whether a proxy sent it.`);
  }
  if (!answer.ok) throw new ApiError(value?.error?.message ?? `The service returned status ${answer.status}.`, value?.error?.param);
  return value;
}

// Shows the message of an error, or hides the place when there is none.
export function complain(place, error) {
  place.hidden = !error;
  place.textContent = error ? error.message : "";
  if (error) place.scrollIntoView({ block: "nearest" });
}

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// Makes an element with attributes and children. Strings become text, never markup.
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key in element && typeof value !== "string") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// <button data-call="POST /v1/…" data-sure="Really?" data-then="/path">; without data-then the page reloads.
document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-call]");
  if (!button || (button.dataset.sure && !confirm(button.dataset.sure))) return;
  const [method, path] = button.dataset.call.split(" ");
  button.disabled = true;
  try {
    await call(method, path, button.dataset.body ? JSON.parse(button.dataset.body) : undefined);
    if (button.dataset.then) location.assign(button.dataset.then);
    else location.reload();
  } catch (error) {
    button.disabled = false;
    complain($("#problem"), error);
  }
});
