// The samples a user collects: uids in the browser's own storage, by pool, until they are downloaded as a subset.
import { download } from "./api.js";
import { $, button, count, el, picture, toast } from "./dom.js";

const SHOWN = 48; // thumbnails in the drawer
const held = new Set();
let place = "mmfilter-basket";
export const listeners = [];

export const has = (uid) => held.has(uid);
export const size = () => held.size;
export const uids = () => [...held];

/** Take up the basket of a pool, as it was left. */
export function open(pool) {
  place = `mmfilter-basket:${pool}`;
  const stored = localStorage.getItem(place) || "";
  for (const uid of stored.match(/[0-9a-f]{32}/g) || []) held.add(uid);
  changed();
}

function changed() {
  try {
    localStorage.setItem(place, [...held].join(""));
  } catch {
    toast("The basket is too large for this browser to remember: download it before you close the page.", true);
  }
  $("basket-count").textContent = count(held.size);
  $("basket-open").classList.toggle("full", held.size > 0);
  if ($("basket").open) draw();
  for (const listener of listeners) listener();
}

export function toggle(uid) {
  if (!held.delete(uid)) held.add(uid);
  changed();
}

export function add(list) {
  const before = held.size;
  for (const uid of list) held.add(uid);
  changed();
  toast(`${count(held.size - before)} added to the basket`);
}

function remove(list) {
  for (const uid of list) held.delete(uid);
  changed();
}

let clearing = false;
function clear() {
  if (!clearing) {
    clearing = true;
    return draw();
  }
  clearing = false;
  return remove(uids());
}

export async function save(list = uids(), name = "basket") {
  try {
    await download({ uids: list }, name);
    toast(`${count(list.length)} uids saved as ${name}.npy`);
  } catch (error) {
    toast(error.message, true);
  }
}

let findLike = () => {};
export const onLike = (call) => (findLike = call);

function draw() {
  const box = $("basket");
  const newest = uids().reverse();
  const name = el("input", { type: "text", value: box.querySelector("input")?.value || "basket", "aria-label": "Name of the file", spellcheck: "false", size: "14" });
  box.replaceChildren(
    el("header", {}, el("h2", {}, "Basket"), el("span", { class: "soft", "aria-live": "polite" }, `${count(held.size)} sample${held.size === 1 ? "" : "s"}`),
      button("✕", () => box.close(), { class: "icon", "aria-label": "Close" })),
    held.size ? el("ul", { class: "thumbs" }, newest.slice(0, SHOWN).map((uid) =>
      el("li", {}, picture(uid, "", 128), button("✕", () => remove([uid]), { class: "icon", "aria-label": `Take ${uid} out` })))) :
      el("p", { class: "soft pad" }, "Nothing yet. Press b on a sample, or its + button, to collect it. The basket becomes a subset: a sorted .npy of uids that reshard and every recipe take."),
    newest.length > SHOWN && el("p", { class: "soft pad" }, `and ${count(newest.length - SHOWN)} more`),
    held.size > 0 && el("footer", {},
      el("label", { class: "inline" }, name, ".npy"),
      button("Download", () => save(uids(), name.value.trim().replace(/[^\w.-]+/g, "-") || "basket"), { class: "primary", id: "basket-download" }),
      button("Find more like these", () => { box.close(); findLike(newest.slice(0, 16)); }, { title: "Search by the newest 16" }),
      button(clearing ? `Really empty it (${count(held.size)})?` : "Empty", clear, { class: clearing ? "danger" : "" })));
}

export function wire() {
  $("basket-open").addEventListener("click", () => {
    clearing = false;
    draw();
    $("basket").showModal();
  });
}
