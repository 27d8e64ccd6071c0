// The axes of a design as form fields: legal values can be chosen, the others say why not.

import { $$, make } from "./api.js";

const TITLES = {
  model: "Base model",
  algorithm: "Learning algorithm",
  update: "Weight update",
  placement: "Adapter placement (target_modules)",
  schedule: "Learning-rate schedule",
  rank: "LoRA rank",
  epochs: "Epochs",
  batch_size: "Batch size",
  layers: "Layers kept",
  kv_heads: "Key/value heads kept",
  window: "Attention window",
  rope_factor: "RoPE scaling factor",
  learning_rate_multiplier: "Learning-rate multiplier",
  learning_rate: "Learning rate",
};
export const BOXED = ["model", "algorithm", "update", "placement", "schedule"];

export const title = (name) => TITLES[name] ?? name.replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase());

// Parses numbers separated by commas. Anything else is sent as it is, so that the service can say what it expects.
export const numbers = (text) =>
  text.split(",").map((part) => part.trim()).filter(Boolean).map((part) => (Number.isFinite(Number(part)) ? Number(part) : part));

// The choices of an axis as checkboxes, or as radio buttons with `single`. `chosen` is a Set of values.
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
  if (!legal.length) parts.push(make("p", { class: "soft small" }, "No value is available."));
  if (refused.length) {
    parts.push(make("details", { class: "refused", id: `refused-${axis.name}`, open: Boolean(open) },
      make("summary", {}, `${refused.length} not available: why?`),
      make("ul", {}, ...refused.map((choice) => make("li", {}, make("b", {}, String(choice.value)), `: ${choice.why}`)))));
  }
  return parts;
}

// The searched range of a numeric axis, for the field's placeholder.
export function searched(axis) {
  if (axis.low !== null) return `${axis.low} to ${axis.high}`;
  return axis.choices.map((choice) => choice.value).join(", ");
}

// Replaces the content of `place` and restores the focus.
export function refill(place, parts) {
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  place.replaceChildren(...parts);
  if (focused) $$("[id]", place).find((element) => element.id === focused)?.focus();
}
