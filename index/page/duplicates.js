// Groups of duplicates: the one that is kept, and beside it those that are dropped, each with what it is to the kept one.
import { KINDS, likeness } from "./alike.js";
import * as api from "./api.js";
import { command } from "./commands.js";
import { $, button, count, el, empty } from "./dom.js";
import { card, enter, wire as wireGrid } from "./grid.js";
import { set, state } from "./state.js";

const LIMIT = 24; // groups a page
const SHOWN = 12; // duplicates of a group that show at first
const ORDERS = {
  "": "The least certain first: semantic ones by the lowest cosine, then perceptual ones by the lowest cosine (by most bits without embeddings), then the same files.",
  alike: "The most certain first: the same files, then perceptual, then semantic ones by the highest cosine.",
  size: "The largest groups first.",
};
let shown = ""; // the question whose answer is on the page

export function wire(handlers) {
  wireGrid($("groups"), handlers);
  $("order").addEventListener("change", () => set({ order: $("order").value, page: "" }));
}

const query = () => ({ kind: state.alike in KINDS ? state.alike : "", order: state.order in ORDERS && state.order ? state.order : "doubt" });

export async function show(info) {
  if (!info.columns.some((column) => column.name === "duplicate_of")) {
    $("groups-more").replaceChildren(empty("No duplicates known yet", "Look for them once; then load this page again.", command("dedup")));
    return;
  }
  const page = Math.max(1, Math.floor(Number(state.page)) || 1);
  const asked = { ...query(), offset: (page - 1) * LIMIT, limit: LIMIT };
  const question = JSON.stringify(asked);
  if (question === shown) return;
  shown = question;
  $("groups-more").replaceChildren(el("span", { class: "soft" }, "…"));
  try {
    const found = await api.duplicates(asked);
    if (shown === question) draw(found, page);
  } catch (error) {
    if (shown !== question) return;
    shown = "";
    $("duplicates-lead").textContent = "";
    $("groups").replaceChildren();
    $("pages").hidden = true;
    $("groups-more").replaceChildren(error.status === 0
      ? empty("The service does not answer", error.message, command("serve"))
      : empty("The duplicates cannot be read", error.message));
  }
}

function draw(found, page) {
  bar(found);
  $("groups").replaceChildren(...found.groups.map(group));
  enter($("groups"));
  const beyond = found.total && !found.groups.length;
  $("groups-more").replaceChildren(beyond ? empty("No such page", `There are ${count(Math.ceil(found.total / LIMIT))}.`) : "");
  pages(page, found.total);
  lead(found);
}

function lead({ total, kinds, alike }) {
  const all = Object.values(kinds || {}).reduce((sum, kind) => sum + kind.duplicates, 0);
  const limits = [alike?.cosine !== null && alike?.cosine !== undefined && `a cosine above ${alike.cosine}`, alike?.bits !== null && alike?.bits !== undefined && `${alike.bits} bits or fewer`].filter(Boolean);
  $("duplicates-lead").textContent = !total && !all ? "No sample of this pool is a duplicate of another."
    : `${count(total)} group${total === 1 ? "" : "s"}${state.alike in KINDS ? ` with ${state.alike} duplicates` : ""}. Each number is of that picture and the kept one.${limits.length ? ` A duplicate has ${limits.join(", or ")}, to the kept one or to another of its group.` : ""}`;
}

function bar({ kinds }) {
  $("duplicates-bar").hidden = !kinds;
  if (!kinds) return;
  const all = Object.values(kinds).reduce((sum, kind) => sum + kind.duplicates, 0);
  const choice = (value, text, n) => {
    const input = el("input", { type: "radio", name: "alike", value, checked: (state.alike in KINDS ? state.alike : "") === value });
    input.addEventListener("change", () => set({ alike: value, page: "" }));
    return el("label", { title: KINDS[value] || "Every kind" }, input, el("span", {}, `${text} ${count(n)}`));
  };
  const focus = document.activeElement?.name === "alike";
  $("alike").replaceChildren(el("legend", { class: "sr" }, "Kind"), choice("", "All", all),
    ...Object.keys(KINDS).map((kind) => choice(kind, kind[0].toUpperCase() + kind.slice(1), kinds[kind].duplicates)));
  if (focus) $("alike").querySelector("input:checked")?.focus();
  $("order").value = state.order in ORDERS ? state.order : "";
  $("duplicates-order").textContent = ORDERS[$("order").value];
}

function pages(page, total) {
  const last = Math.ceil(total / LIMIT), box = $("pages");
  box.hidden = last < 2 && page === 1;
  const go = (to) => {
    set({ page: to > 1 ? String(to) : "" });
    scrollTo({ top: 0 });
  };
  const field = el("input", { type: "number", min: 1, max: last, value: page, "aria-label": "Page" });
  field.addEventListener("change", () => go(Math.min(last, Math.max(1, Math.floor(Number(field.value)) || 1))));
  const step = (text, to, label) => button(text, () => go(to), { "aria-label": label, disabled: to < 1 || to > last || to === page });
  box.replaceChildren(step("«", 1, "First page"), step("‹", page - 1, "Page before"),
    el("label", { class: "inline" }, "Page ", field, ` of ${count(last)}`),
    step("›", page + 1, "Next page"), step("»", last, "Last page"));
}

function group({ kept, duplicates, size }) {
  const cards = (hits) => hits.map((hit) => card({ ...hit, kept: null }, { told: likeness(hit.duplicate), tag: "div" }));
  const side = el("div", { class: "grid side" }, cards(duplicates.slice(0, SHOWN)));
  const waiting = duplicates.slice(SHOWN), asked = query();
  let listed = duplicates.length;
  const rest = el("div", { class: "rest" });
  const offer = () => rest.replaceChildren(side.children.length < size ? button(`Show ${count(Math.min(size - side.children.length, 50))} more of ${count(size)}`, more) : "");
  const more = async () => {
    try {
      if (!waiting.length) {
        const { groups } = await api.duplicates({ ...asked, of: kept.uid, start: listed });
        listed += groups[0].duplicates.length;
        waiting.push(...groups[0].duplicates);
      }
      side.append(...cards(waiting.splice(0)));
      offer();
    } catch (error) {
      rest.replaceChildren(el("p", { class: "soft" }, error.message), button("Try again", more));
    }
  };
  offer();
  return el("article", { class: `card group of-${Math.min(4, duplicates.length)}` },
    el("section", {}, el("h3", { class: "k" }, "Kept"), el("div", { class: "grid side" }, card({ ...kept, kept: null }, { value: null, tag: "div" }))),
    el("section", { class: "wide" }, el("h3", { class: "d" }, `${count(size)} duplicate${size === 1 ? "" : "s"}`), side, rest));
}
