// The estimated cost of a design or a job, in words.

import { make } from "./api.js";

export function bytes(count) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let size = count;
  while (size >= 1000 && units.length > 1) {
    size /= 1000;
    units.shift();
  }
  return `${size >= 100 || units[0] === "B" ? Math.round(size) : size.toPrecision(3)} ${units[0]}`;
}

export const millions = (count) => (count >= 1e9 ? `${(count / 1e9).toFixed(2)} B` : `${(count / 1e6).toFixed(1)} M`);

export const facts = (list, rows) =>
  list.replaceChildren(...rows.filter(Boolean).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));

export const prices = (estimate) =>
  estimate.calibrated_from
    ? `Estimated for ${estimate.device}, calibrated on ${estimate.calibrated_from} finished trials.`
    : `Estimated for ${estimate.device} without calibration: the figures can be off several-fold.`;
