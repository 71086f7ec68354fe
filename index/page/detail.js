// One sample in a dialog: its image large, its caption whole, every column, and what each rule said of it.
import { likeness } from "./alike.js";
import * as api from "./api.js";
import * as basket from "./basket.js";
import { $, button, copy, count, el, number, picture, words } from "./dom.js";
import { set, state } from "./state.js";

let acts = {};
let shown = "";

/** `handlers`: more, less, alone(uid); step(uid, by) -> the neighbouring uid in the grid, if any; by, whose verdicts these are. */
export function wire(handlers) {
  acts = handlers;
  const box = $("detail");
  box.addEventListener("close", () => {
    if (box.open) return; // opened again before this event came
    shown = "";
    if (state.open) set({ open: "" });
  });
  box.addEventListener("click", (event) => event.target === box && box.close());
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !state.open) return;
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") step(event.key === "ArrowRight" ? 1 : -1);
    else if (event.key === "b") basket.toggle(state.open);
    else if (event.key === "m") then(acts.more);
    else if (event.key === "l") then(acts.less);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  basket.listeners.push(() => {
    const toggle = $("detail-basket");
    if (toggle) toggle.textContent = inBasket();
  });
}

const inBasket = () => (basket.has(shown) ? "Take out of the basket" : "Add to the basket");

function step(by) {
  const uid = acts.step(state.open, by);
  if (uid) set({ open: uid }, true);
}

/** Which neighbours there are: also called when the grid is filled anew. */
export function steps() {
  for (const control of $("detail").querySelectorAll("[data-step]")) control.disabled = !acts.step(shown, Number(control.dataset.step));
}

function then(call) {
  const uid = state.open;
  state.open = "";
  call(uid);
}

/** Show what the state says: called whenever it changes. */
export async function sync() {
  const box = $("detail");
  if (!state.open) {
    if (box.open) box.close();
    return;
  }
  if (shown === state.open && box.open) return;
  const uid = (shown = state.open);
  if (!box.open) {
    box.replaceChildren(el("p", { class: "pad soft" }, "…"));
    box.showModal();
  }
  try {
    const found = await api.sample(uid);
    if (shown === uid) draw(box, found);
  } catch (error) {
    if (shown === uid) box.replaceChildren(closing(box), el("p", { class: "pad" }, error.message), el("code", { class: "uid pad" }, uid));
  }
}

const closing = (box) => button("✕", () => box.close(), { class: "icon close", "aria-label": "Close" });

function large(hit) {
  const image = el("img", { alt: hit.text || "no caption" });
  const link = el("a", { href: api.imageUrl(hit.uid, 0), target: "_blank", rel: "noopener", class: "large", title: "The file as it lies in the tar" }, image);
  image.addEventListener("error", () => link.replaceWith(el("div", { class: "large gone" }, "The image is not at hand: its tar was moved or changed.")));
  image.src = api.imageUrl(hit.uid, 768);
  return link;
}

function value(v) {
  if (v === null || v === undefined || v === "") return el("span", { class: "soft" }, "none");
  return words(typeof v === "object" ? JSON.stringify(v) : typeof v === "number" ? number(v, 6) : v);
}

/** The sample that is kept for this one, and what the two are to each other. */
function same(hit) {
  if (hit.stands_for) return el("p", { class: "soft" }, `The one that is kept of ${count(hit.stands_for + 1)} duplicates.`);
  if (hit.duplicate_error) return el("p", { class: "soft" }, `Its duplicates cannot be compared: ${hit.duplicate_error}`);
  if (!hit.duplicate) return null;
  const kept = el("button", { type: "button", class: "face large-face", "aria-label": "Open the kept one", title: hit.duplicate.of, onclick: () => set({ open: hit.duplicate.of }) }, picture(hit.duplicate.of, "", 128));
  return el("section", { class: "same" }, el("h3", {}, "Duplicate of"), el("div", {}, kept, likeness(hit.duplicate)));
}

function draw(box, hit) {
  const known = { ...hit.columns };
  // duplicate_similarity may be that to another sample than the kept one: `duplicate` says what this one is to it.
  for (const name of ["uid", "text", ...(hit.stands_for === undefined ? [] : ["duplicate_of", "duplicate_kind", "duplicate_similarity"])]) delete known[name];
  const row = (name, v) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value(v)));
  const verdicts = hit.verdicts || [];
  box.replaceChildren(closing(box),
    el("div", { class: "detail" },
      el("div", { class: "left" }, large(hit),
        el("div", { class: "steps" }, button("←", () => step(-1), { "aria-label": "Previous sample", "data-step": -1 }),
          el("span", { class: "soft" }, hit.width ? `${count(hit.width)} × ${count(hit.height)} px` : ""),
          button("→", () => step(1), { "aria-label": "Next sample", "data-step": 1 }))),
      el("div", { class: "right" },
        (hit.text || "").trim() ? el("p", { dir: "auto", class: "caption" }, hit.text) : el("p", { class: "caption none" }, "no caption"),
        el("div", { class: "uid-line" }, el("code", { class: "uid" }, hit.uid), button("Copy", () => copy(hit.uid), { "aria-label": "Copy the uid" })),
        el("div", { class: "actions" }, button(inBasket(), () => basket.toggle(hit.uid), { class: "primary", id: "detail-basket" }),
          button("More like this", () => then(acts.more)), button("Less like this", () => then(acts.less)), button("Its neighbours", () => then(acts.alone)),
          hit.scores?.cluster_id >= 0 && button("Its concept", () => set({ open: "", view: "concepts", concept: String(hit.scores.cluster_id) }))),
        same(hit),
        verdicts.length > 0 && el("section", {}, el("h3", {}, hit.kept ? "Kept" : "Dropped", acts.by && el("span", { class: "soft" }, ` by ${acts.by}`)),
          el("ul", { class: "verdicts" }, verdicts.map((v) => el("li", { class: v.keep ? "k" : "d" }, el("b", { "aria-label": v.keep ? "kept by" : "dropped by" }, v.keep ? "✓" : "✕"), el("span", {}, words(v.text || v.rule), v.text ? el("code", {}, v.rule) : null))))),
        el("section", {}, el("h3", {}, "Columns"), el("table", {}, el("tbody", {},
          row("shard", hit.shard), row("key", hit.key), row("url", hit.url), Object.entries(known).filter(([name]) => name !== "key" && name !== "url").map(([name, v]) => row(name, v))))))));
  steps();
}
