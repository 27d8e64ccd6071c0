// What the registry of metrics says of the curves: their labels, units and charts. The page has it in `data-curves`.

const specs = JSON.parse(document.querySelector("[data-curves]").dataset.curves);
const byName = new Map(specs.map((spec) => [spec.name, spec]));

export const curveLabel = (name) => byName.get(name)?.label ?? name.replaceAll("_", " ");

// The title of an axis: the label, with the unit where there is one.
export function curveTitle(name) {
  const unit = byName.get(name)?.unit;
  return curveLabel(name) + (unit ? ` (${unit})` : "");
}

// What a curve says, for the tooltip of its option.
export function curveHint(name) {
  const { description = "", lower_is_better: lower = null } = byName.get(name) ?? {};
  return lower === null ? description : `${description} ${lower ? "Lower" : "Higher"} is better.`;
}

// The curves that are drawn in one chart, those of training or those of validation.
export const curvesOf = (chart, split) => specs.filter((spec) => spec.chart === chart && spec.split === split);
