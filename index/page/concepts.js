// Concepts: the map, a list beside it, and one of them opened.
import * as api from "./api.js";
import { command } from "./commands.js";
import { $, button, count, debounce, el, empty, number, picture, words } from "./dom.js";
import * as map from "./map.js";
import { NO_QUERY, set, state } from "./state.js";

const ROWS = 80; // rows of the list that are made at once
let concepts = [];
let byId = new Map();
let model = ""; // whose concepts are loaded
let laid = ""; // whose are on the map
let rows = ROWS;

export function wire(info) {
  const choice = $("model");
  choice.append(...info.concepts.map((name) => el("option", { value: name }, name)));
  $("model-box").hidden = info.concepts.length < 2;
  choice.addEventListener("change", () => set({ model: choice.value, concept: "", clusters: [], without: [] }));
  map.wire();
  const again = () => { rows = ROWS; list(); };
  $("concept-find").addEventListener("input", debounce(100, again));
  $("concept-sort").addEventListener("change", again);
  addEventListener("resize", debounce(200, () => state.view === "concepts" && concepts.length && lay()));
}

const open = (id) => set({ concept: String(id) === state.concept ? "" : String(id) }, true);

function lay() {
  map.lay(concepts, open);
  sync();
}

export async function show(info) {
  const wanted = info.concepts.includes(state.model) ? state.model : info.concepts[0];
  $("concepts-body").hidden = !wanted;
  if (!wanted) {
    $("concepts-lead").replaceChildren(empty("No concepts yet", "Group the pool by what its images show; each group gets a label, exemplars and a place on the map.", command("cluster")));
    return;
  }
  try {
    await load(info);
  } catch (error) {
    $("concepts-body").hidden = true;
    $("concepts-lead").replaceChildren(empty("The concepts cannot be read", error.message, error.status === 0 ? command("serve") : command("cluster")));
    return;
  }
  $("model").value = wanted;
  if (laid === wanted) return sync();
  laid = wanted;
  lay();
}

/** The chosen model's concepts, asked for once. */
export async function load(info) {
  const wanted = info.concepts.includes(state.model) ? state.model : info.concepts[0];
  if (!wanted || wanted === model) return;
  concepts = (await api.concepts(wanted)).concepts;
  byId = new Map(concepts.map((concept) => [concept.id, concept]));
  model = wanted;
}

/** Called whenever the state changes. */
export function sync() {
  if (state.view !== "concepts" || !concepts.length) return;
  const total = concepts.reduce((sum, concept) => sum + concept.size, 0);
  const out = state.without.reduce((sum, id) => sum + (byId.get(id)?.size || 0), 0);
  $("concepts-lead").textContent = `${count(concepts.length)} concepts of ${count(total)} samples. A circle's area is a concept's size; near ones look alike.` +
    (state.without.length ? ` ${count(state.without.length)} excluded, with ${count(out)} samples.` : "");
  map.mark(state.concept === "" ? -1 : Number(state.concept), state.without);
  panel();
  list();
}

export const name = (id) => (byId.has(id) ? map.name(byId.get(id)) : `concept ${id}`);

function exclude(id) {
  const without = state.without.includes(id) ? state.without.filter((other) => other !== id) : [...state.without, id];
  set({ without, clusters: state.clusters.filter((other) => other !== id) });
}

const samples = (ids) => set({ view: "search", ...NO_QUERY, clusters: ids, without: state.without.filter((id) => !ids.includes(id)) });
const excluding = (id) => (state.without.includes(id) ? "Take back in" : "Exclude");

function panel() {
  const box = $("panel");
  const concept = byId.get(Number(state.concept === "" ? -1 : state.concept));
  if (!concept) {
    const largest = [...concepts].sort((a, b) => b.size - a.size)[0];
    box.replaceChildren(el("h3", {}, "Pick a concept"), el("p", { class: "soft" }, "Click a circle, or move between circles with the arrow keys and press Enter."),
      el("div", { class: "actions" }, button(`Largest: ${map.name(largest)}`, () => open(largest.id)), state.without.length > 0 && button("Take all back in", () => set({ without: [] }))));
    return;
  }
  const fact = (term, value) => el("div", {}, el("dt", {}, term), el("dd", {}, value));
  box.replaceChildren(
    button("✕", () => set({ concept: "" }, true), { class: "icon close", "aria-label": "Close" }),
    el("h3", { class: "concept-name" }, words(map.name(concept))),
    el("p", { class: "terms" }, (concept.label || []).slice(0, 8).map((term) => words(term, "term"))),
    el("dl", {}, fact("samples", count(concept.size)), fact("tightness", number(concept.tightness, 3)), fact("density", number(concept.density, 3)), fact("id", String(concept.id))),
    el("div", { class: "actions" }, button("Open its samples", () => samples([concept.id]), { class: "primary" }), button(excluding(concept.id), () => exclude(concept.id), { id: "exclude" })),
    el("ul", { class: "thumbs" }, (concept.exemplars || []).slice(0, 9).map((uid) => el("li", {}, openable(uid)))),
    (concept.neighbours || []).length > 0 && el("p", { class: "near" }, el("span", { class: "soft" }, "Near it: "), concept.neighbours.filter((id) => byId.has(id)).slice(0, 5).map((id) => button(map.name(byId.get(id)), () => open(id)))));
}

function openable(uid) {
  const box = button("", () => set({ open: uid }), { class: "bare", "aria-label": `Open exemplar ${uid}` });
  box.append(picture(uid, "", 128));
  return box;
}

function row(concept, most) {
  const bar = el("i", { class: state.without.includes(concept.id) ? "d" : "k" });
  bar.style.width = `${(100 * concept.size) / most}%`;
  const title = button("", () => open(concept.id), { class: "bare name" });
  title.append(words(map.name(concept)));
  return el("li", { class: `${String(concept.id) === state.concept ? "open" : ""}${state.without.includes(concept.id) ? " without" : ""}` },
    el("span", { class: "faces" }, (concept.exemplars || []).slice(0, 3).map((uid) => picture(uid, "", 64))),
    title, el("span", { class: "meter", "aria-hidden": "true" }, bar), el("span", { class: "n" }, count(concept.size)),
    button(excluding(concept.id), () => exclude(concept.id), { "aria-label": `${excluding(concept.id)}: ${map.name(concept)}` }));
}

function list() {
  const find = $("concept-find").value.trim().toLowerCase();
  const by = $("concept-sort").value;
  const found = concepts.filter((concept) => !find || (concept.label || []).some((term) => term.toLowerCase().includes(find)));
  found.sort((a, b) => (b[by] ?? 0) - (a[by] ?? 0));
  const most = Math.max(1, ...found.map((concept) => concept.size));
  $("concept-list").replaceChildren(...found.slice(0, rows).map((concept) => row(concept, most)));
  $("concept-more").replaceChildren(found.length > rows ? button(`Show more (${count(found.length - rows)})`, () => { rows += ROWS; list(); }) : found.length ? "" : el("span", { class: "soft" }, "No label has this word."));
}
