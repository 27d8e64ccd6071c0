// Calls of the API, and buttons and forms that make them.

export class ApiError extends Error {
  constructor(message, param) {
    super(message);
    this.param = param;
  }
}

// The answer's JSON; raises ApiError with the service's own words.
export async function call(method, path, body) {
  const headers = body === undefined || body instanceof FormData ? {} : { "content-type": "application/json" };
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers,
      body: body === undefined || body instanceof FormData ? body : JSON.stringify(body),
    });
  } catch {
    throw new ApiError("The service cannot be reached. Is it still running?");
  }
  const text = await answer.text();
  let found = null;
  try {
    found = text ? JSON.parse(text) : null;
  } catch {
    throw new ApiError(`The service answered ${answer.status} in words that are not its own.`);
  }
  if (!answer.ok) throw new ApiError(found?.error?.message ?? `The service answered ${answer.status}.`, found?.error?.param);
  return found;
}

// A place for the words of an error, beside what was asked for.
export function complain(place, error) {
  if (!place) {
    alert(error.message);
    return;
  }
  place.hidden = !error;
  place.textContent = error ? error.message : "";
  if (error) place.scrollIntoView({ block: "nearest" });
}

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// An element with attributes and children; text is text.
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

// <button data-call="POST /v1/…" data-sure="Really?" data-then="/path">; without data-then the page is loaded again.
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

// Parts of a page that runs on: <div id="part-…" data-part> are fetched again and put in place.
export function keepFresh(seconds, after = () => {}) {
  const again = async () => {
    if (!document.hidden) {
      try {
        const text = await (await fetch(location.href, { headers: { accept: "text/html" } })).text();
        const page = new DOMParser().parseFromString(text, "text/html");
        for (const part of $$("[data-part]")) {
          const fresh = page.getElementById(part.id);
          if (fresh && fresh.innerHTML !== part.dataset.was) {
            part.dataset.was = fresh.innerHTML;
            part.innerHTML = fresh.innerHTML;
          }
        }
        after(page);
        if (!page.querySelector("[data-live]")) return;
      } catch {
        // the next time, perhaps
      }
    }
    setTimeout(again, seconds * 1000);
  };
  setTimeout(again, seconds * 1000);
}
