// Parts of a page that are replaced by those of the page as the service renders it now: after a link or a form of the
// part itself, or because something has happened. Without scripts the same addresses load whole pages.

import { showTimes } from "./shell.js";

const changed = new Set();
export const onSwap = (call) => changed.add(call);

let turn = 0;
let asked = Promise.resolve(); // what the reader asked for last: looking again waits for it

// Look again at the page as it is now, and once more where the reader has gone on meanwhile.
export async function refresh() {
  let mine;
  do {
    await asked;
    mine = turn;
    await show(location.href, null, mine);
  } while (mine !== turn);
}

// Go to `address`, of which only the part of that id is another.
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
  const typing = focused?.type === "search" ? focused : null;
  const scrolled = part.querySelector(".wide")?.scrollLeft ?? 0;
  const seen = next.innerHTML;
  part.replaceChildren(...document.importNode(next, true).childNodes);
  part.dataset.seen = seen;
  showTimes(part);
  const wide = part.querySelector(".wide");
  if (wide) wide.scrollLeft = scrolled;
  const again = focused?.id ? document.getElementById(focused.id) : null;
  if (again && typing) again.value = typing.value; // what was typed since the page was asked for
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

const FORM = "form[data-swap]"; // of each part one at most, which is another after each swap
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

// What was typed before this script was here.
for (const input of document.querySelectorAll(`${FORM} input[type=search]`)) {
  if (input.value !== input.defaultValue) send(partOf(input.form));
}
