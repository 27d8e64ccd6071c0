// Curves of the metric registry: their labels, units and charts. The page has them in `data-curves`.

const specs = JSON.parse(document.querySelector("[data-curves]").dataset.curves);
const byName = new Map(specs.map((spec) => [spec.name, spec]));

export const curveLabel = (name) => byName.get(name)?.label ?? name.replaceAll("_", " ");

// The title of an axis: the label, with the unit if there is one. An axis has room for about 35 characters.
export function curveTitle(name) {
  const { unit = "" } = byName.get(name) ?? {};
  return curveLabel(name) + (unit ? ` (${unit})` : "");
}

// The description of a curve, its name in transformers and its better direction, for a tooltip.
export function curveHint(name) {
  const { description = "", alias = "", lower_is_better: lower = null } = byName.get(name) ?? {};
  const known = alias ? ` It is ${alias} in transformers.` : "";
  return description + known + (lower === null ? "" : ` ${lower ? "Lower" : "Higher"} is better.`);
}

// The training or validation curves of one chart.
export const curvesOf = (chart, split) => specs.filter((spec) => spec.chart === chart && spec.split === split);
