// Groups of duplicates: the one that is kept, and beside it those that are dropped.
import * as api from "./api.js";
import { command } from "./commands.js";
import { $, button, count, el, empty } from "./dom.js";
import { card, enter, wire as wireGrid } from "./grid.js";

const LIMIT = 24; // groups a request
const SHOWN = 12; // duplicates of a group that show at first
let loaded = -1; // groups that are shown; -1: not asked yet

export const wire = (handlers) => wireGrid($("groups"), handlers);

export async function show(info) {
  if (loaded >= 0) return;
  if (!info.columns.some((column) => column.name === "duplicate_of")) {
    $("groups-more").replaceChildren(empty("No duplicates known yet", "Look for them once; then load this page again.", command("dedup")));
    return;
  }
  loaded = 0;
  await more();
}

const similarity = (hit) => hit.similarity ?? hit.scores?.duplicate_similarity ?? null;

function group({ kept, duplicates, size = duplicates.length }) {
  const name = `${count(size)} duplicate${size === 1 ? "" : "s"}${size > duplicates.length ? `, the first ${duplicates.length}` : ""}`;
  const others = [...duplicates].sort((a, b) => (similarity(b) ?? 0) - (similarity(a) ?? 0));
  const cards = (hits) => hits.map((hit) => card({ ...hit, kept: null }, { value: similarity(hit), title: "similarity to the one that is kept", tag: "div" }));
  const side = el("div", { class: "grid side" }, cards(others.slice(0, SHOWN)));
  const rest = others.length > SHOWN && button(`Show ${others.length - SHOWN} more`, () => {
    side.append(...cards(others.slice(SHOWN)));
    rest.remove();
  }, { class: "rest" });
  return el("article", { class: `card group of-${Math.min(4, duplicates.length)}` },
    el("section", {}, el("h3", { class: "k" }, "Kept"), el("div", { class: "grid side" }, card({ ...kept, kept: null }, { value: null, tag: "div" }))),
    el("section", { class: "wide" }, el("h3", { class: "d" }, name), side, rest));
}

async function more() {
  const end = $("groups-more");
  end.replaceChildren(el("span", { class: "soft" }, "…"));
  try {
    const { groups, total } = await api.duplicates(loaded, LIMIT);
    loaded += groups.length;
    $("groups").append(...groups.map(group));
    enter($("groups"));
    $("duplicates-lead").textContent = total
      ? `${count(total)} group${total === 1 ? "" : "s"} of samples that are the same or nearly so.`
      : "No sample of this pool is a duplicate of another.";
    end.replaceChildren(groups.length && loaded < total ? button(`Show more (${count(total - loaded)})`, more) : "");
  } catch (error) {
    loaded = -1;
    $("duplicates-lead").textContent = "";
    end.replaceChildren(error.status === 0
      ? empty("The service does not answer", error.message, command("serve"))
      : empty("The duplicates cannot be read", error.message));
  }
}
