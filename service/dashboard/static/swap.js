// Replaces parts of the page with freshly rendered ones: after a link or form in the part, or after an event. Without
// scripts the same addresses load whole pages.

import { showTimes } from "./shell.js";

const changed = new Set();
export const onSwap = (call) => changed.add(call);

let turn = 0;
let asked = Promise.resolve(); // the last navigation: a refresh waits for it

// Refreshes all parts, and repeats if the reader navigated in the meantime.
export async function refresh() {
  let mine;
  do {
    await asked;
    mine = turn;
    await show(location.href, null, mine);
  } while (mine !== turn);
}

// Goes to `address` and replaces only the part with the id `only`.
export function goTo(address, only) {
  asked = show(address, only, ++turn);
  return asked;
}

async function show(address, only, mine) {
  const text = await page(address);
  if (text === null || mine !== turn) return;
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const part of document.querySelectorAll("[data-part]")) {
    const next = fresh.getElementById(part.id);
    if (next && (only === null || only === part.id) && next.innerHTML !== part.dataset.seen) replace(part, next);
  }
  history.replaceState(null, "", address);
  for (const call of changed) call();
}

// Returns null if the service cannot be reached or the reader has left; the page then stays as it is.
async function page(address) {
  try {
    const answer = await fetch(address, { headers: { accept: "text/html" } });
    return answer.ok ? await answer.text() : null;
  } catch {
    return null;
  }
}

function replace(part, next) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const typing = focused?.type === "search" ? focused : null;
  const scrolled = part.querySelector(".wide")?.scrollLeft ?? 0;
  const seen = next.innerHTML;
  part.replaceChildren(...document.importNode(next, true).childNodes);
  part.dataset.seen = seen;
  showTimes(part);
  const wide = part.querySelector(".wide");
  if (wide) wide.scrollLeft = scrolled;
  const again = focused?.id ? document.getElementById(focused.id) : null;
  if (again && typing) again.value = typing.value; // typed since the request was sent
  again?.focus({ preventScroll: true });
  if (again && typing) again.setSelectionRange(typing.selectionStart, typing.selectionEnd);
}

const partOf = (element) => element.closest("[data-part]").id;

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-swap]");
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  goTo(link.href, partOf(link));
});

// Links with the role of a checkbox react to the space bar.
document.addEventListener("keydown", (event) => {
  if (event.key === " " && event.target.matches?.("a[role=checkbox]")) {
    event.preventDefault();
    event.target.click();
  }
});

const address = (form) => {
  const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  query.delete("show", "designs");
  return `${location.pathname}?${query}`;
};

const FORM = "form[data-swap]"; // at most one per part, replaced with it
const send = (part) => goTo(address(document.getElementById(part).querySelector(FORM)), part);

document.addEventListener("submit", (event) => {
  if (event.target.matches(FORM)) {
    event.preventDefault();
    send(partOf(event.target));
  }
});
let soon;
document.addEventListener("input", (event) => {
  const form = event.target.closest?.(FORM);
  if (!form) return;
  const part = partOf(form);
  clearTimeout(soon);
  soon = setTimeout(() => send(part), event.target.type === "search" ? 250 : 0);
});

// Text that was typed before this script loaded.
for (const input of document.querySelectorAll(`${FORM} input[type=search]`)) {
  if (input.value !== input.defaultValue) send(partOf(input.form));
}
