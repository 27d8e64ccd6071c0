// Parts of a page that are replaced by those of the page as the service renders it now: after a link or a form of the
// part itself, or because something has happened. Without scripts the same addresses load whole pages.

import { showTimes } from "./shell.js";

const changed = new Set();
export const onSwap = (call) => changed.add(call);

let turn = 0;

// Fetch the page at `address` and put its parts into place; with `only`, just the part of that id.
export async function swap(address = location.href, { only = null, push = false } = {}) {
  const mine = ++turn;
  const text = await page(address);
  if (text === null || mine !== turn) return;
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const part of document.querySelectorAll("[data-part]")) {
    const next = fresh.getElementById(part.id);
    if (next && (only === null || only === part.id) && next.innerHTML !== part.dataset.seen) replace(part, next);
  }
  if (push) history.replaceState(null, "", address);
  for (const call of changed) call();
}

// Null where the service is away, or the reader has left: what is shown stays until it answers again.
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
  const start = focused?.selectionStart ?? null;
  const scrolled = part.querySelector(".wide")?.scrollLeft ?? 0;
  const seen = next.innerHTML;
  part.replaceChildren(...document.importNode(next, true).childNodes);
  part.dataset.seen = seen;
  showTimes(part);
  const wide = part.querySelector(".wide");
  if (wide) wide.scrollLeft = scrolled;
  const again = focused?.id ? document.getElementById(focused.id) : null;
  again?.focus({ preventScroll: true });
  if (again && start !== null && again.type === "search") again.setSelectionRange(start, start);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-swap]");
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  swap(link.href, { only: link.closest("[data-part]").id, push: true });
});

// What looks like a checkbox is pressed like one.
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

const send = (form) => swap(address(form), { only: form.closest("[data-part]").id, push: true });

document.addEventListener("submit", (event) => {
  if (event.target.matches("form[data-swap]")) {
    event.preventDefault();
    send(event.target);
  }
});
let soon;
document.addEventListener("input", (event) => {
  const form = event.target.closest?.("form[data-swap]");
  if (!form) return;
  clearTimeout(soon);
  soon = setTimeout(() => send(form), event.target.type === "search" ? 250 : 0);
});
