// A histogram with two handles. It knows counts by bin only, so its cost is that of the bins, whatever the pool's size.
import { count, el, number, svg } from "./dom.js";

const STEPS = 1000; // places a handle can stand in
const HEIGHT = 100;
let made = 0; // ids of clip paths

/** Whether each bin is one whole number: then its edges lie halfway between. */
const whole = (edges) => edges.length > 1 && edges.every((edge, i) => Number.isInteger(edge + 0.5) && (!i || edge - edges[i - 1] === 1));

/** The bounds as places on the axis: those of whole numbers lie at the outer edges of their bins. */
const outer = (edges, low, high) => (whole(edges) ? [low === null ? null : Math.ceil(low) - 0.5, high === null ? null : Math.floor(high) + 0.5] : [low, high]);

/** Samples with low <= value <= high by the histogram: whole bins, and the part of a bin that a bound cuts. */
export function estimate({ edges, counts }, low, high) {
  let total = 0;
  [low, high] = outer(edges, low, high);
  counts.forEach((n, i) => {
    const [from, to] = [edges[i], edges[i + 1]];
    const inside = Math.min(to, high ?? Infinity) - Math.max(from, low ?? -Infinity);
    total += to > from ? n * Math.min(1, Math.max(0, inside / (to - from))) : n;
  });
  return total;
}

/** The value that about `part` of the samples reach or exceed. */
export function quantile({ edges, counts }, part) {
  let left = part * counts.reduce((a, b) => a + b, 0);
  for (let i = counts.length - 1; i >= 0; i--) {
    if (counts[i] >= left) return edges[i + 1] - (left / (counts[i] || 1)) * (edges[i + 1] - edges[i]);
    left -= counts[i];
  }
  return edges[0];
}

/** Digits after the point that tell one place of the handle from the next. */
export const decimals = (span) => Math.min(12, Math.max(0, Math.ceil(-Math.log10(span / STEPS))));

/** Whether one bin towers so much that the others would not show: then heights are square roots. */
const towers = (counts) => Math.max(...counts) > (12 * counts.reduce((a, b) => a + b, 0)) / counts.length;

function bars({ counts }, className) {
  const most = Math.max(1, ...counts);
  const power = towers(counts) ? 0.5 : 1;
  const d = counts.map((n, i) => {
    const height = n ? Math.max(0.8, HEIGHT * (n / most) ** power) : 0;
    return `M${i + 0.06} ${HEIGHT}V${HEIGHT - height}H${i + 0.94}V${HEIGHT}Z`;
  });
  return svg("path", { class: className, d: d.join("") });
}

/** Round values between two ends, some seven of them. */
function ticks(low, high) {
  const rough = (high - low) / 7;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((by) => by * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high && found.length < 20; i++) found.push(Number((i * step).toPrecision(9)));
  return found;
}

/** {node, set(low, high), digits of a bound, steep}; `onmove(low, high)` while a handle moves, null where a handle rests at its end. */
export function histogram(data, label, onmove) {
  const { edges, counts } = data;
  const [first, last] = [edges[0], edges.at(-1)];
  const span = last - first || 1;
  const digits = whole(edges) ? 0 : decimals(span);
  const at = (value) => Math.min(1, Math.max(0, (value - first) / span));
  const clip = svg("rect", { x: 0, y: 0, width: counts.length, height: HEIGHT });
  const id = `clip-${made++}`;
  const plot = svg("svg", { class: "bars", viewBox: `0 0 ${counts.length} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("clipPath", { id }, clip), bars(data, "out"), svg("g", { "clip-path": `url(#${id})` }, bars(data, "in")));
  const marks = (data.thresholds || []).filter((cut) => cut >= first && cut <= last).map((cut) => {
    const line = el("span", { class: "cut", title: `a rule of this pool cuts at ${number(cut)}` });
    line.style.left = `${100 * at(cut)}%`;
    return line;
  });
  const handle = (name, start) => el("input", { type: "range", min: 0, max: STEPS, step: 1, value: start, "aria-label": `${name} ${label} to keep` });
  const low = handle("Lowest", 0);
  const high = handle("Highest", STEPS);
  const valueOf = (input) => Number((first + (input.value / STEPS) * span).toFixed(digits));
  const bound = (input, rest) => (Number(input.value) === rest ? null : valueOf(input));

  function paint(from, to) {
    const [start, end] = outer(edges, from, to);
    const [left, right] = [start === null ? 0 : at(start), end === null ? 1 : at(end)];
    clip.setAttribute("x", left * counts.length);
    clip.setAttribute("width", Math.max(0, right - left) * counts.length);
    low.setAttribute("aria-valuetext", from === null ? "no lower bound" : number(from));
    high.setAttribute("aria-valuetext", to === null ? "no upper bound" : number(to));
    low.classList.toggle("above", left > 0.5); // so that the two handles never lock each other in
  }
  function moved(event) {
    if (Number(low.value) > Number(high.value)) event.target.value = event.target === low ? high.value : low.value;
    const ends = [bound(low, 0), bound(high, STEPS)];
    paint(...ends);
    onmove(...ends);
  }
  low.addEventListener("input", moved);
  high.addEventListener("input", moved);
  const set = (from, to) => {
    low.value = from === null ? 0 : Math.round(at(from) * STEPS);
    high.value = to === null ? STEPS : Math.round(at(to) * STEPS);
    paint(from, to);
  };
  set(null, null);
  const axis = ticks(first, first + span).map((value) => {
    const tick = el("span", {}, number(value).replace("-", "−"));
    tick.style.left = `${100 * at(value)}%`;
    return tick;
  });
  const node = el("div", { class: "histogram", title: `${count(Math.max(...counts))} samples in the fullest of ${counts.length} bins` },
    el("div", { class: "plot" }, plot, marks), el("div", { class: "handles" }, low, high), el("div", { class: "axis", "aria-hidden": "true" }, axis));
  return { node, set, digits, steep: towers(counts) };
}
