// A card for each score: what a threshold keeps, at once and then exactly, and what lies on either side of it.
import * as api from "./api.js";
import { $, button, copy, count, debounce, el, number, say, share, toast } from "./dom.js";
import { card, enter, wire as wireGrid } from "./grid.js";
import { estimate, histogram, quantile } from "./histogram.js";
import { filtered, NO_FILTER, recipe, rules, set, state } from "./state.js";

const PRESETS = [0.75, 0.5, 0.3, 0.1];
const NEIGHBOURS = 6;
const cards = new Map(); // column -> its card's functions
let pool = { columns: [], samples: 0 };

/** The smallest float32 above a value: what a maximum of `value` is the last to drop. */
function above(value) {
  const step = Math.max(Math.abs(value), 1e-30) * 2 ** -23;
  return Math.max(Math.fround(value + step), value + step);
}

export function wire(info, handlers) {
  pool = info;
  const useful = info.columns.filter((c) => c.type === "number" && !/phash|cluster_id/.test(c.name) && c.min !== null && c.max !== null && c.min < c.max);
  const rank = (c) => (/^(centroid|duplicate|overlap)_|density/.test(c.name) ? 2 : /score|similarity/.test(c.name) ? 0 : 1);
  useful.sort((a, b) => rank(a) - rank(b));
  const box = $("score-cards");
  const seen = new IntersectionObserver((entries) => entries.filter((e) => e.isIntersecting).forEach((e) => {
    seen.unobserve(e.target);
    fill(e.target, e.target.dataset.column);
  }), { rootMargin: "300px" });
  for (const column of useful) {
    const node = el("article", { class: "card score", dataset: { column: column.name } }, el("h3", {}, say(column.name)), el("p", { class: "soft" }, "…"));
    box.append(node);
    seen.observe(node);
  }
  if (!useful.length) box.append(el("p", { class: "soft" }, "This pool has no column of numbers to cut."));
  wireGrid(box, handlers);
}

/** Called whenever the state changes. */
export function sync() {
  if (state.view !== "scores") return;
  for (const [column, made] of cards) made.sync(...(state.bounds[column] || [null, null]));
  drawSum();
}

function setBounds(column, low, high) {
  const bounds = { ...state.bounds };
  if (low === null && high === null) delete bounds[column];
  else bounds[column] = [low, high];
  set({ bounds }, true);
}

async function fill(node, column) {
  let data;
  try {
    data = await api.histogram(column);
  } catch (error) {
    node.replaceChildren(el("h3", {}, say(column)), el("p", { class: "soft" }, error.message));
    return;
  }
  const total = data.counts.reduce((a, b) => a + b, 0) + data.missing;
  const told = el("output", { class: "keeps", "aria-live": "polite" });
  const sides = el("div", { class: "sides" });
  const save = debounce(180, (low, high) => setBounds(column, low, high));
  const tell = (kept, sign) => told.replaceChildren(el("b", {}, `${sign}${count(kept)}`), ` of ${count(total)} kept · ${share(kept, total)}`);
  const plot = histogram(data, say(column), (low, high) => {
    tell(low === null && high === null ? total : estimate(data, low, high), low === null && high === null ? "" : "≈ ");
    inputs(low, high);
    save(low, high);
  });
  const field = (name) => el("input", { type: "number", step: 10 ** -plot.digits, placeholder: "none", "aria-label": `${name} ${say(column)}` });
  const [low, high] = [field("Minimum of"), field("Maximum of")];
  const inputs = (from, to) => { low.value = from ?? ""; high.value = to ?? ""; };
  const typed = () => setBounds(column, low.value === "" ? null : Number(low.value), high.value === "" ? null : Number(high.value));
  low.addEventListener("change", typed);
  high.addEventListener("change", typed);
  const top = PRESETS.map((part) => button(`top ${part * 100} %`, () => setBounds(column, Number(quantile(data, part).toFixed(plot.digits)), null)));
  const cuts = (data.thresholds || []).slice(0, 4).map((cut) => button(`≥ ${number(cut)}`, () => setBounds(column, cut, null), { title: "A rule of this pool cuts here" }));
  node.replaceChildren(...[
    el("div", { class: "title" }, el("h3", { title: column }, say(column), el("code", {}, column)), told),
    plot.node,
    plot.steep ? el("p", { class: "soft note" }, "Bar heights are square roots of counts, so that the small ones show.") : null,
    el("div", { class: "bounds" }, el("label", {}, "min ", low), el("label", {}, "max ", high), el("span", { class: "presets" }, top, cuts),
      button("Reset", () => setBounds(column, null, null), { class: "reset" }),
      data.missing > 0 && el("span", { class: "soft" }, `${count(data.missing)} have no value and are dropped by any bound`)),
    sides].filter(Boolean));
  let last = "";
  const sync = (from, to) => {
    const now = `${from}..${to}`;
    if (now === last) return;
    last = now;
    plot.set(from, to);
    inputs(from, to);
    node.classList.toggle("on", from !== null || to !== null);
    exact(column, from, to, { sides, current: () => last === now, tell: (kept) => tell(kept, ""), total, data, digits: plot.digits }).catch((error) => toast(error.message, true));
  };
  cards.set(column, { sync });
  sync(...(state.bounds[column] || [null, null]));
}

/** The exact count, and the samples on either side of each bound. */
async function exact(column, low, high, to) {
  if (low === null && high === null) {
    to.tell(to.total);
    to.sides.replaceChildren();
    return;
  }
  to.tell(estimate(to.data, low, high));
  const rule = { threshold: { score: column, ...(low === null ? {} : { min: low }), ...(high === null ? {} : { max: high }) } };
  const [counted, atLow, atHigh] = await Promise.all([
    api.preview(rule),
    low === null ? null : api.edge(column, low, NEIGHBOURS),
    high === null ? null : api.edge(column, above(high), NEIGHBOURS),
  ]);
  if (!to.current()) return;
  to.tell(counted.kept);
  to.sides.replaceChildren(
    ...(atLow ? pair(column, to.digits, `Just below ${number(low, 6)}`, atLow.below, `Just above ${number(low, 6)}`, atLow.above) : []),
    ...(atHigh ? pair(column, to.digits, `Just above ${number(high, 6)}`, atHigh.above, `Just below ${number(high, 6)}`, atHigh.below) : []));
  enter(to.sides);
}

/** One digit more than the handle's, so that what lies on either side of it looks different. */
const fine = (value, digits) => (typeof value === "number" && digits && !Number.isInteger(value) ? value.toFixed(digits + 1) : number(value));

function pair(column, digits, dropTitle, drops, keepTitle, keeps) {
  const side = (title, hits, kept) => el("section", {}, el("h4", { class: kept ? "k" : "d" }, title, el("span", {}, kept ? " · kept" : " · dropped")),
    hits.length ? el("div", { class: "grid strip" }, hits.map((hit) => card({ ...hit, kept: null }, { value: fine(hit.scores?.[column] ?? { original_width: hit.width, original_height: hit.height }[column], digits), title: column, columns: [], tag: "div" }))) : el("p", { class: "soft" }, "No sample."));
  return [side(dropTitle, drops, false), side(keepTitle, keeps, true)];
}

let counting = null;
/** What all filters together keep: asked of the service, drawn on the scores' view. */
const drawSum = debounce(60, async () => {
  const box = $("sum");
  if (!filtered()) {
    box.replaceChildren(el("p", {}, el("b", {}, count(pool.samples)), el("span", { class: "soft" }, " samples, and no filter yet. Bounds that you set here filter the search as well, and can be copied as a recipe.")));
    return;
  }
  counting?.abort();
  counting = new AbortController();
  try {
    const { kept, dropped } = await kept_of(counting.signal);
    const all = kept + dropped;
    const bar = el("i", { class: "k" });
    bar.style.width = `${(100 * kept) / (all || 1)}%`;
    box.replaceChildren(
      el("div", { class: "sum-line" }, el("p", { "aria-live": "polite" }, el("b", { id: "sum-kept" }, count(kept)), el("span", { class: "soft" }, ` of ${count(all)} pass ${["", "the filter", "both filters"][rules().length] || `all ${rules().length} filters`} · ${share(kept, all)}`)),
        el("div", { class: "actions" }, button("See them", () => set({ view: "search" }), { class: "primary" }), button("Download as .npy", downloadKept), button("Copy recipe", () => copy(recipe())), button("Clear", () => set(NO_FILTER)))),
      el("div", { class: "meter", "aria-hidden": "true" }, bar));
  } catch (error) {
    if (error.name !== "AbortError") box.replaceChildren(el("p", { class: "bad" }, error.message), el("div", { class: "actions" }, button("Clear the filters", () => set(NO_FILTER))));
  }
});

/** {in, kept, ...} of all filters; `among` is what the search is restricted to. */
export const kept_of = (signal) => api.preview({ all: rules() }, signal);

export async function downloadKept() {
  try {
    await api.download({ select: { all: rules() } }, "selection");
    toast("Saved as selection.npy");
  } catch (error) {
    toast(error.message, true);
  }
}

