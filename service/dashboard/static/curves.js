// Curves of the metric registry: their labels, units and charts. The page has them in `data-curves`.

const specs = JSON.parse(document.querySelector("[data-curves]").dataset.curves);
const byName = new Map(specs.map((spec) => [spec.name, spec]));

export const curveLabel = (name) => byName.get(name)?.label ?? name.replaceAll("_", " ");

// The title of an axis: the label, with the name in transformers and the unit if there are any.
export function curveTitle(name) {
  const { alias = "", unit = "" } = byName.get(name) ?? {};
  const notes = [alias, unit].filter(Boolean).join(", ");
  return curveLabel(name) + (notes ? ` (${notes})` : "");
}

// The description of a curve and its better direction, for a tooltip.
export function curveHint(name) {
  const { description = "", lower_is_better: lower = null } = byName.get(name) ?? {};
  return lower === null ? description : `${description} ${lower ? "Lower" : "Higher"} is better.`;
}

// The training or validation curves of one chart.
export const curvesOf = (chart, split) => specs.filter((spec) => spec.chart === chart && spec.split === split);
