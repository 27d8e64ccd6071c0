// The axes of a design as form fields: what is legal can be chosen, what is not says why.

import { $$, make } from "./api.js";

const TITLES = {
  model: "Base model",
  algorithm: "Learning algorithm",
  update: "Weight update",
  placement: "Where adapters sit",
  rank: "Rank of adapters",
  epochs: "Epochs",
  batch_size: "Batch size",
  layers: "Layers kept",
  kv_heads: "Key/value heads kept",
  window: "Attention window",
  rope_factor: "Context, times the model’s own",
  learning_rate_multiplier: "Learning rate, times the default",
};
export const BOXED = ["model", "algorithm", "update", "placement"];

export const title = (name) => TITLES[name] ?? name.replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase());

// What is typed into a field for several values: numbers with commas between them. What is no number goes as it is, so
// that the service says what it expects.
export const numbers = (text) =>
  text.split(",").map((part) => part.trim()).filter(Boolean).map((part) => (Number.isFinite(Number(part)) ? Number(part) : part));

// An axis whose members are named, as boxes (several) or as buttons of which one is pressed. `chosen` is a Set of values.
export function members(axis, chosen, { single = false, changed }) {
  const legal = axis.choices.filter((choice) => choice.legal);
  const refused = axis.choices.filter((choice) => !choice.legal);
  const open = document.getElementById(`refused-${axis.name}`)?.open;
  const list = make("div", { class: "choices" });
  for (const choice of legal) {
    const value = String(choice.value);
    const box = make("input", {
      type: single ? "radio" : "checkbox", id: `${axis.name}-${value}`, name: axis.name, value, checked: chosen.has(value),
    });
    box.addEventListener("change", () => {
      if (single) chosen.clear();
      if (box.checked) chosen.add(value);
      else chosen.delete(value);
      changed();
    });
    list.append(make("label", { class: `choice${choice.searched ? " searched" : ""}`, title: choice.about ?? "" }, box, value));
  }
  const parts = [list];
  if (!legal.length) parts.push(make("p", { class: "soft small" }, "Nothing is possible here."));
  if (refused.length) {
    parts.push(make("details", { class: "refused", id: `refused-${axis.name}`, open: Boolean(open) },
      make("summary", {}, `${refused.length} not possible here, and why`),
      make("ul", {}, ...refused.map((choice) => make("li", {}, make("b", {}, String(choice.value)), `: ${choice.why}`)))));
  }
  return parts;
}

// What of an axis of numbers is searched, for the field's placeholder.
export function searched(axis) {
  if (axis.low !== null) return `${axis.low} to ${axis.high}`;
  return axis.choices.map((choice) => choice.value).join(", ");
}

// Puts new content into `place` and the focus back to where it was.
export function refill(place, parts) {
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  place.replaceChildren(...parts);
  if (focused) $$("[id]", place).find((element) => element.id === focused)?.focus();
}
