// What is shown, kept in the URL's hash so that a view can be shared, and the filters as the service and a recipe say them.

import { freeName, selectCommand, subsetPath } from "./commands.js";

const LISTS = ["like", "unlike"];
const IDS = ["clusters", "without"];
const WORDS = ["q", "index", "uid", "minus", "floor", "k", "kept", "subset", "where", "model", "concept", "open", "seed", "pool", "alike", "order", "page"];
const NUMBERS = ["floor", "k", "seed", "page"];
const UID = /^[0-9a-f]{32}$/;

export const state = fresh();
export const listeners = [];

function fresh() {
  return {
    view: "search", q: "", index: "", uid: "", minus: "", floor: "", k: "", kept: "", subset: "", where: "", model: "",
    concept: "", open: "", seed: "", pool: "", alike: "", order: "", page: "", like: [], unlike: [], clusters: [], without: [], bounds: {},
  };
}

export function toHash(from = state) {
  const query = new URLSearchParams();
  if (from.view !== "search") query.set("view", from.view);
  for (const name of WORDS) if (from[name] !== "") query.set(name, from[name]);
  for (const name of [...LISTS, ...IDS]) if (from[name].length) query.set(name, from[name].join(","));
  for (const [column, [low, high]] of Object.entries(from.bounds)) query.set(`t.${column}`, `${low ?? ""}..${high ?? ""}`);
  return `#${query}`;
}

export function fromHash(hash) {
  const found = fresh();
  for (const [name, value] of new URLSearchParams(hash.replace(/^#/, ""))) {
    if (name === "view" && ["search", "scores", "concepts", "duplicates"].includes(value)) found.view = value;
    else if (NUMBERS.includes(name)) found[name] = Number.isFinite(Number(value)) ? value : "";
    else if (WORDS.includes(name)) found[name] = value;
    else if (LISTS.includes(name)) found[name] = value.split(",").filter((uid) => UID.test(uid));
    else if (IDS.includes(name)) found[name] = value.split(",").filter((id) => /^\d+$/.test(id)).map(Number);
    else if (name.startsWith("t.")) {
      const [low, high] = value.split("..").map((end) => (end === "" || Number.isNaN(Number(end)) ? null : Number(end)));
      if (low !== null || (high ?? null) !== null) found.bounds[name.slice(2)] = [low, high ?? null];
    }
  }
  if (!["", "kept", "dropped"].includes(found.kept)) found.kept = "";
  if (!UID.test(found.open)) found.open = "";
  return found;
}

/** Change the state and tell who listens; `quiet` replaces the history's entry instead of adding one. */
export function set(changes, quiet = false) {
  Object.assign(state, changes);
  const hash = toHash();
  if (hash !== (location.hash || "#")) history[quiet ? "replaceState" : "pushState"](null, "", hash);
  for (const listener of listeners) listener(state);
}

export function load() {
  Object.assign(state, fromHash(location.hash));
  for (const listener of listeners) listener(state);
}

export const NO_QUERY = { q: "", uid: "", like: [], unlike: [], minus: "", floor: "" };
export const NO_FILTER = { kept: "", where: "", clusters: [], without: [], bounds: {} };

const name = (column) => `"${column.replaceAll('"', '""')}"`;

/** SQL for the bounds and the user's own expression; "" when there is none. */
function sql(without = "") {
  const parts = [];
  for (const [column, [low, high]] of Object.entries(state.bounds)) {
    if (column === without) continue;
    if (low !== null) parts.push(`${name(column)} >= ${low}`);
    if (high !== null) parts.push(`${name(column)} <= ${high}`);
  }
  if (state.where) parts.push(parts.length ? `(${state.where})` : state.where);
  return parts.join(" AND ");
}

/** The filters as `among` of /api/search; undefined when nothing is filtered. */
export function among() {
  const found = {};
  if (state.kept) Object.assign(found, { kept: state.kept === "kept", ...(state.subset ? { subset: state.subset } : {}) });
  if (sql()) found.where = sql();
  if (state.clusters.length) found.clusters = state.clusters;
  if (state.without.length) found.without_clusters = state.without;
  return Object.keys(found).length ? found : undefined;
}

/** The filters as a list of a recipe's rules. */
export function rules() {
  const found = Object.entries(state.bounds).map(([score, [min, max]]) => ({
    threshold: { score, ...(min === null ? {} : { min }), ...(max === null ? {} : { max }) },
  }));
  if (state.where) found.push({ where: { sql: state.where } });
  if (state.clusters.length) found.push({ where: { sql: `cluster_id IN (${state.clusters.join(", ")})` } });
  if (state.without.length) found.push({ where: { sql: `cluster_id NOT IN (${state.without.join(", ")})` } });
  if (state.kept) {
    const rule = { in_subset: { path: `subsets/${state.subset}.npy` } };
    found.push(state.kept === "kept" ? rule : { not: rule });
  }
  return found;
}

export const filtered = () => rules().length > 0;

/** The filters as a whole recipe, in YAML, that `mmfilter select` takes. JSON strings are YAML strings, so nothing
 * needs to be escaped twice. */
export function recipe() {
  const name = freeName();
  const lines = rules().map((rule) => {
    const [[key, value]] = Object.entries(anywhere(rule));
    const inner = Object.entries(value).map(([field, v]) => `${field}: ${typeof v === "object" ? flow(v) : scalar(v)}`);
    return `    - ${key}: {${inner.join(", ")}}`;
  });
  const select = lines.length ? `select:\n  all:\n${lines.join("\n")}\n` : "select:\n  everything: {}\n";
  return `# ${selectCommand(name).replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029]/g, " ")}\nname: ${name}\n${select}`;
}

/** A rule with its subset's whole path: a recipe takes a relative one from the folder it is called in. */
function anywhere(rule) {
  if (rule.not) return { not: anywhere(rule.not) };
  return rule.in_subset ? { in_subset: { path: subsetPath(state.subset) } } : rule;
}

const PLAIN = /^(?!(?:true|false|null|yes|no|on|off|y|n)$)[a-z_][\w./-]*$/i; // a string that YAML reads as itself
// YAML 1.1 reads 1e-7 as a word and 1.0e-7 as a number.
const scalar = (value) => (typeof value === "string" ? (PLAIN.test(value) ? value : JSON.stringify(value)) : String(value).replace(/^(-?\d+)e/, "$1.0e"));
const flow = (value) => `{${Object.entries(value).map(([k, v]) => `${k}: ${scalar(v)}`).join(", ")}}`;
