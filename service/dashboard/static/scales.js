// Maps values to pixels: linear, logarithmic or in named bands; and chooses the tick labels.

const MULTIPLES = [[4, [1]], [1.5, [1, 3]], [0.7, [1, 2, 5]]]; // [decades, multiples of powers of ten that get ticks]

// An axis is {title, log, names, zero, ticks}: `names` makes bands, `zero` starts at 0, `ticks` sets the labels.
// `values` are spread from one pixel to the other with `pad` free pixels at both ends. After zooming the axis shows
// `span`, in the values that `back` returns.
export function scaleOf(axis, values, [from, to], { pad, most, span = null }) {
  const place = axis.names && new Map(axis.names.map((name, i) => [name, i + 0.5]));
  const inner = (value) => {
    if (value === null) return NaN;
    if (place) return place.get(value);
    return axis.log ? Math.log10(value) : value;
  };
  const [low, high] = span ?? extent(axis, values.map(inner), pad / Math.abs(to - from));
  const at = (value) => from + ((inner(value) - low) / (high - low)) * (to - from);
  const written = axis.names ?? axis.ticks ?? (axis.log ? decades(low, high, most) : even(low, high, most));
  return {
    at,
    back: (pixel) => low + ((pixel - from) / (to - from)) * (high - low),
    ticks: written.filter((value) => inner(value) >= low && inner(value) <= high),
  };
}

export const text = (value) => (typeof value === "number" ? String(Number(value.toPrecision(8))) : value);

function extent(axis, places, pad) {
  if (axis.names) return [0, axis.names.length];
  let [low, high] = [Infinity, -Infinity];
  for (const place of places) {
    if (place < low && Number.isFinite(place)) low = place;
    if (place > high && Number.isFinite(place)) high = place;
  }
  if (low > high) return [0, 1];
  if (axis.zero) low = Math.min(0, low);
  const more = high > low ? (high - low) * pad : Math.abs(high) / 20 || 0.5;
  return [axis.zero && low === 0 ? 0 : low - more, high + more];
}

function even(low, high, most) {
  const rough = (high - low) / most;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * ([1, 2, 5].find((each) => each * unit >= rough) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

function decades(low, high, most) {
  const multiples = MULTIPLES.find(([span]) => high - low >= span)?.[1];
  if (!multiples) return even(10 ** low, 10 ** high, most);
  const powers = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, i) => 10 ** (Math.floor(low) + i));
  const found = powers.flatMap((power) => multiples.map((each) => each * power));
  const every = Math.ceil(found.length / (2 * most));
  return found.filter((_, i) => i % every === 0);
}
