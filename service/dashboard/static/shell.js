// For every page: the colour theme, times in the reader's time zone, and confirmation of destructive actions.

const THEME = "luthier_theme";
const YEAR = 365 * 24 * 3600;

export const dark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

function choose(theme) {
  document.documentElement.dataset.theme = theme;
  document.cookie = `${THEME}=${theme}; path=/; max-age=${YEAR}; samesite=strict`;
  document.dispatchEvent(new CustomEvent("luthier:theme"));
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const precise = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const date = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "long" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

function ago(seconds) {
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ["minute", 60];
  return Math.abs(seconds) < 60 ? "just now" : relative.format(Math.trunc(seconds / size), unit);
}

// <time datetime="…" data-show="ago|clock|second|moment">
export function showTimes(root = document) {
  const now = Date.now();
  for (const element of root.querySelectorAll("time[data-show]")) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    const today = new Date().toDateString() === moment.toDateString();
    element.title = full.format(moment);
    switch (element.dataset.show) {
      case "ago": element.textContent = ago((moment - now) / 1000); break;
      case "clock": element.textContent = `${today ? "" : `${date.format(moment)}, `}${clock.format(moment)}`; break;
      case "second": element.textContent = `${today ? "" : `${date.format(moment)}, `}${precise.format(moment)}`; break;
      default: element.textContent = `${date.format(moment)}, ${clock.format(moment)}`;
    }
  }
}

document.querySelector("[data-theme-toggle]")?.addEventListener("click", () => choose(dark() ? "light" : "dark"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  document.dispatchEvent(new CustomEvent("luthier:theme")),
);
// <form data-confirm="Cancel this job?">
document.addEventListener("submit", (event) => {
  const question = event.target.dataset?.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
showTimes();
setInterval(showTimes, 30_000);
