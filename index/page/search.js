// The search view: the query and its terms, the filters as chips, and the grid of what is found.
import * as api from "./api.js";
import { command } from "./commands.js";
import * as basket from "./basket.js";
import * as concepts from "./concepts.js";
import { $, button, copy, count, el, empty, number, picture, say, share, toast, words } from "./dom.js";
import * as grid from "./grid.js";
import * as image from "./image.js";
import { kept_of } from "./scores.js";
import { among, filtered, NO_FILTER, NO_QUERY, recipe, set, state } from "./state.js";

const SIZES = [60, 200, 500, 1000, 5000];
let pool = null;
let hits = [];
let asked = ""; // the query that the grid shows
let running = null;
let filled = () => {};
export const onFilled = (call) => (filled = call);

const queried = () => Boolean(state.q || state.uid || state.like.length || state.unlike.length || image.current());

export function wire(info, handlers) {
  pool = info;
  const options = (node, values, text = (value) => value) => node.append(...values.map((value) => el("option", { value }, text(value))));
  options($("index"), info.indices.map((index) => index.name));
  options($("subset"), info.subsets);
  $("kept").hidden = $("subset-box").hidden = info.subsets.length === 0;
  const limit = info.limits?.k || 1000;
  options($("k"), [...new Set(SIZES.map((k) => Math.min(k, limit)))], count);
  options($("columns"), info.columns.map((column) => (/^[a-z_]\w*$/i.test(column.name) ? column.name : `"${column.name}"`)));
  const score = info.columns.find((column) => column.type === "number");
  $("where").placeholder = score ? `${score.name} > ${number(score.min + 0.6 * (score.max - score.min), 2)} AND caption_words < 20` : "column > 1";
  const on = (id, field, event = "change") => $(id).addEventListener(event, () => set({ [field]: $(id).value }));
  on("index", "index"), on("minus", "minus"), on("floor", "floor"), on("k", "k"), on("subset", "subset");
  $("kept").addEventListener("change", (event) => set({ kept: event.target.value }));
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    set({ view: "search", q: $("q").value.trim(), minus: $("minus").value.trim() });
  });
  $("clear").addEventListener("click", () => {
    image.drop();
    set(NO_QUERY);
    $("q").focus();
  });
  $("q").addEventListener("input", clearable);
  image.wire(() => set({ view: "search", ...NO_QUERY }));
  wireWhere();
  wireActions();
  grid.wire($("results"), handlers);
}

function wireWhere() {
  const box = $("where-box");
  const open = (shown) => {
    box.hidden = !shown;
    $("where-open").setAttribute("aria-expanded", String(shown));
    if (shown) $("where").focus();
  };
  $("where-open").addEventListener("click", () => open(box.hidden));
  box.addEventListener("submit", (event) => {
    event.preventDefault();
    set({ where: $("where").value.trim() });
    open(false);
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    open(false);
    $("where-open").focus();
  });
}

function wireActions() {
  $("shuffle").addEventListener("click", () => set({ seed: String((Number(state.seed) || 0) + 1) }, true));
  $("all-basket").addEventListener("click", () => basket.add(hits.map((hit) => hit.uid)));
  $("all-download").addEventListener("click", () => basket.save(hits.map((hit) => hit.uid), "results"));
  $("copy-recipe").addEventListener("click", () => copy(recipe()));
}

const clearable = () => ($("clear").hidden = !($("q").value || queried()));

const chip = (label, drop, node) => el("span", { class: "chip" }, node || null, typeof label === "string" ? el("span", {}, label) : label,
  button("✕", drop, { "aria-label": `Remove: ${typeof label === "string" ? label : label.textContent}` }));

function terms() {
  const without = (list, uid) => list.filter((other) => other !== uid);
  const like = (name, sign) => state[name].map((uid) => chip(sign, () => set({ [name]: without(state[name], uid) }), picture(uid, "", 64)));
  $("terms").replaceChildren(
    ...(state.uid ? [chip("neighbours of", () => set({ uid: "" }), picture(state.uid, "", 64))] : []),
    ...(image.current() ? [chip("your image", () => { image.drop(); set({}, true); })] : []),
    ...like("like", "more like"), ...like("unlike", "less like"));
}

function chips() {
  const { bounds, clusters, without, where } = state;
  const found = Object.entries(bounds).map(([column, [low, high]]) => {
    const text = low === null ? `${say(column)} ≤ ${number(high)}` : high === null ? `${say(column)} ≥ ${number(low)}` : `${number(low)} ≤ ${say(column)} ≤ ${number(high)}`;
    return chip(text, () => set({ bounds: Object.fromEntries(Object.entries(bounds).filter(([name]) => name !== column)) }));
  });
  for (const id of clusters) found.push(chip(words(`in “${concepts.name(id)}”`), () => set({ clusters: clusters.filter((other) => other !== id) })));
  if (without.length > 3) found.push(chip(`without ${without.length} concepts`, () => set({ without: [] })));
  else for (const id of without) found.push(chip(words(`without “${concepts.name(id)}”`), () => set({ without: without.filter((other) => other !== id) })));
  if (where) found.push(chip(el("code", { dir: "auto" }, where), () => set({ where: "" })));
  if (found.length > 1 || (found.length && state.kept)) found.push(button("Clear all", () => set(NO_FILTER)));
  $("chips").replaceChildren(...found);
}

/** Called whenever the state changes. */
export function sync() {
  if (document.activeElement !== $("q") || state.q === "") $("q").value = state.q;
  for (const name of ["minus", "floor", "where"]) if (document.activeElement !== $(name)) $(name).value = state[name];
  const known = !state.index || pool.indices.some((index) => index.name === state.index);
  $("index").value = known ? state.index || pool.indices[0]?.name || "" : ""; // a link's index that is gone is an error
  $("index-box").hidden = known && pool.indices.length < 2;
  if (!state.subset || !pool.subsets.includes(state.subset)) state.subset = pool.kept_by || pool.subsets[0] || "";
  $("subset").value = state.subset;
  $("k").value = state.k;
  if (!$("k").value) $("k").selectedIndex = 0;
  for (const radio of $("kept").querySelectorAll("input")) radio.checked = radio.value === state.kept;
  clearable();
  terms();
  chips();
  if (state.clusters.length || state.without.length) concepts.load(pool).then(chips, () => {});
  if (state.view === "search") run();
}

function body() {
  const found = { k: Number($("k").value) || SIZES[0] };
  if (state.index || $("index").value) found.index = state.index || $("index").value;
  if (state.q) found.text = state.q;
  if (image.current()) found.image = image.current();
  if (state.uid) found.uid = state.uid;
  if (state.like.length) found.like = state.like;
  if (state.unlike.length) found.unlike = state.unlike;
  if (queried() && state.minus) found.minus = state.minus;
  if (queried() && state.floor !== "") found.floor = Number(state.floor);
  if (!queried() && state.seed) found.seed = Number(state.seed);
  if (state.subset) found.verdict = state.subset;
  const only = among();
  if (only) found.among = only;
  return found;
}

async function run() {
  const wanted = body();
  const signature = JSON.stringify(wanted);
  if (signature === asked) return;
  asked = signature;
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  $("view-search").setAttribute("aria-busy", "true");
  try {
    const answer = await api.search(wanted, signal);
    hits = answer.hits;
    draw();
    if (filtered()) tellFiltered(signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    asked = "";
    failed(error);
  }
  $("view-search").removeAttribute("aria-busy");
}

function failed(error) {
  hits = [];
  grid.show($("results"), $("more"), []);
  actions();
  $("count").textContent = "";
  const lost = pool.indices.length === 0 && queried();
  $("more").replaceChildren(error.status === 0 ? empty("The service does not answer", "It may have been stopped. Start it again, and this page goes on where it was.", command("serve"))
    : lost ? noIndex() : empty("That did not work", error.message));
}

const noIndex = () => empty("No index yet", "Searching by words or by an image needs an index of the embeddings. Build one, then load this page again.", command("index"));

function actions() {
  $("results-head").querySelector(".actions").hidden = hits.length === 0;
  $("copy-recipe").hidden = !filtered();
  $("shuffle").hidden = queried();
}

function draw() {
  const held = $("results").contains(document.activeElement);
  filled();
  grid.show($("results"), $("more"), hits);
  if (held && hits.length) grid.focus($("results"), firstCard());
  actions();
  const n = count(hits.length);
  const plural = hits.length === 1 ? "sample" : "samples";
  const how = !queried() ? `${n} ${plural} at random` : state.floor !== "" ? `${n} ${plural} of similarity ${state.floor} or more` : `The ${n} nearest`;
  $("count").replaceChildren(how, el("span", { class: "soft", id: "of" }, ` of ${count(pool.samples)}`));
  if (!hits.length) {
    const hint = filtered() ? "The filters leave nothing that fits. Take one out." : state.floor !== "" ? "No sample is that similar. Lower the similarity." : "This pool is empty.";
    $("count").textContent = "No sample found";
    $("more").replaceChildren(el("div", { class: "empty" }, el("h3", {}, "Nothing here"), el("p", {}, hint), filtered() && button("Clear the filters", () => set(NO_FILTER))));
  } else if (!pool.indices.length) $("more").replaceChildren(noIndex());
}

/** After the grid stands: how many samples the filters leave in all. */
async function tellFiltered(signal) {
  try {
    const { kept, dropped } = await kept_of(signal);
    if (!signal.aborted && $("of")) $("of").textContent = ` of ${count(kept)} that pass the filters (${share(kept, kept + dropped)})`;
  } catch (error) {
    if (error.name !== "AbortError" && $("of")) $("of").textContent = " that pass the filters";
  }
}

/** Ask again even when nothing changed: after the server came back. */
export function retry() {
  asked = "";
  sync();
}

/** The uid `by` places from another in the grid. */
export function step(uid, by) {
  const at = hits.findIndex((hit) => hit.uid === uid);
  return at < 0 ? undefined : hits[at + by]?.uid;
}

export const firstCard = () => $("results").querySelector('.hit[tabindex="0"]') || $("results").querySelector(".hit");

export function more(uid) {
  set({ view: "search", uid: "", like: [...state.like.filter((other) => other !== uid), uid], unlike: state.unlike.filter((other) => other !== uid) });
  toast("More like this");
}

export function less(uid) {
  set({ view: "search", unlike: [...state.unlike.filter((other) => other !== uid), uid], like: state.like.filter((other) => other !== uid) });
  toast("Less like this");
}

export function alone(uid) {
  image.drop();
  set({ view: "search", ...NO_QUERY, uid });
}

export function likeAll(uids) {
  image.drop();
  set({ view: "search", ...NO_QUERY, like: uids });
}
