// Samples as cards, and moving among them with the keyboard.
import * as basket from "./basket.js";
import { button, el, picture, say, short, words } from "./dom.js";
import { state } from "./state.js";

export const PER_PAGE = 60; // cards that are made at once

/** The columns a card has room for: those with a bound, then those that are called a score or a similarity. */
function shown(scores) {
  const names = Object.keys(scores || {});
  const bound = names.filter((name) => state.bounds[name]);
  const told = names.filter((name) => /score|similarity/.test(name) && !/^(centroid|duplicate)_/.test(name));
  return [...new Set([...bound, ...told])].slice(0, Math.max(2, bound.length));
}

function verdict(kept) {
  if (kept !== true && kept !== false) return null;
  return el("span", { class: kept ? "verdict k" : "verdict d" }, kept ? "kept" : "dropped");
}

/** One sample. `value` is what leads (default: its similarity), `told` what is said in its place, `columns` which scores follow. */
export function card(hit, { value = hit.similarity, title = "similarity", told = null, columns, tag = "li" } = {}) {
  const act = (name, text, label) => button(text, null, { class: "act", "data-act": name, "aria-label": label, title: label, tabindex: "-1" });
  const scores = (columns || shown(hit.scores)).map((name) =>
    el("span", { title: name }, el("span", {}, say(name)), el("b", {}, short(hit.scores?.[name], name))));
  const said = (hit.text || "").trim();
  const node = el(tag, { class: "hit", tabindex: "-1", role: tag === "li" ? null : "group", "aria-label": said.slice(0, 200) || "no caption", dataset: { uid: hit.uid } },
    el("div", { class: "frame", "data-act": "open" }, picture(hit.uid, hit.text), el("span", { class: "tick", "aria-hidden": "true" }, "✓"),
      el("div", { class: "acts" }, act("basket", "+", "Add to the basket, or take out (b)"), act("more", "more", "More like this (m)"), act("less", "less", "Less like this (l)"))),
    told || el("div", { class: "lead-line" }, value === null || value === undefined ? null : el("b", { class: "value", title }, short(value, title)), verdict(hit.kept)),
    said ? words(said.slice(0, 400), "cap") : el("span", { class: "cap none" }, "no caption"),
    scores.length ? el("div", { class: "scores" }, scores) : null,
    el("code", { class: "uid", title: `${hit.uid}${hit.width ? `, ${hit.width} × ${hit.height} px` : ""}` }, hit.uid));
  node.hit = hit;
  mark(node);
  return node;
}

/** Show on a card whether its sample is in the basket. */
export function mark(node) {
  const held = basket.has(node.hit.uid);
  node.classList.toggle("held", held);
  const toggle = node.querySelector('[data-act="basket"]');
  toggle.textContent = held ? "−" : "+";
  toggle.setAttribute("aria-pressed", String(held));
}

basket.listeners.push(() => document.querySelectorAll(".hit").forEach(mark));

const cards = (grid) => [...grid.querySelectorAll(".hit")];

/** Make the first card of a grid a stop of the Tab key, where none is. */
export function enter(grid) {
  const first = grid.querySelector(".hit");
  if (first && !grid.querySelector('.hit[tabindex="0"]')) first.tabIndex = 0;
}

/** Give the keyboard to one card of the grid; only its buttons are stops of the Tab key. */
export function focus(grid, node) {
  const set = (card, stop) => {
    card.tabIndex = stop;
    card.querySelectorAll(".act").forEach((act) => (act.tabIndex = stop));
  };
  grid.querySelectorAll('.hit[tabindex="0"]').forEach((card) => set(card, -1));
  set(node, 0);
  node.focus({ preventScroll: true });
  node.scrollIntoView({ block: "nearest" });
}

/** The card that an arrow key leads to, by how the cards lie. */
function next(list, from, key) {
  const at = list.indexOf(from);
  if (key === "ArrowRight") return list[at + 1];
  if (key === "ArrowLeft") return list[at - 1];
  if (key === "Home") return list[0];
  if (key === "End") return list.at(-1);
  const here = from.getBoundingClientRect();
  const ahead = (key === "ArrowDown" ? list.slice(at + 1) : list.slice(0, at).reverse())
    .map((card) => ({ card, box: card.getBoundingClientRect() }))
    .filter(({ box }) => (key === "ArrowDown" ? box.top > here.top + 1 : box.top < here.top - 1));
  const row = ahead.filter(({ box }) => Math.abs(box.top - ahead[0].box.top) < 1);
  return row.sort((a, b) => Math.abs(a.box.left - here.left) - Math.abs(b.box.left - here.left))[0]?.card;
}

const KEYS = { Enter: "open", b: "basket", m: "more", l: "less" };

/** Let clicks and keys in a grid call `handlers[open | basket | more | less](hit, card)`. */
export function wire(grid, handlers) {
  grid.addEventListener("click", (event) => {
    const node = event.target.closest(".hit");
    const act = event.target.closest("[data-act]")?.dataset.act;
    if (!node || !act) return;
    focus(grid, node);
    handlers[act]?.(node.hit, node);
  });
  grid.addEventListener("keydown", (event) => {
    const node = event.target.closest(".hit");
    if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(Arrow|Home$|End$)/.test(event.key)) {
      const to = next(cards(grid), node, event.key);
      event.preventDefault();
      if (to) focus(grid, to);
    } else if (KEYS[event.key] && (event.key !== "Enter" || event.target === node)) {
      event.preventDefault();
      handlers[KEYS[event.key]]?.(node.hit, node);
    }
  });
}

/** Fill a grid with hits, a page at a time as the end comes near; `more` is the element at its end. */
export function show(grid, more, hits, options = {}) {
  let made = 0;
  grid.replaceChildren();
  grid.observer?.disconnect();
  const page = () => {
    grid.append(...hits.slice(made, made + PER_PAGE).map((hit) => card(hit, options)));
    made = Math.min(hits.length, made + PER_PAGE);
    enter(grid);
    more.replaceChildren(made < hits.length ? button(`Show more (${hits.length - made})`, page) : "");
  };
  page();
  grid.observer = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && made < hits.length && page(), { rootMargin: "600px" });
  grid.observer.observe(more);
}
