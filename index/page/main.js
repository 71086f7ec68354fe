// Starts the page: what the service has, which view is shown, the theme, and the keys that work everywhere.
import * as api from "./api.js";
import * as basket from "./basket.js";
import { command, know } from "./commands.js";
import * as concepts from "./concepts.js";
import * as detail from "./detail.js";
import { $, button, el, empty, toast } from "./dom.js";
import * as duplicates from "./duplicates.js";
import * as grid from "./grid.js";
import * as image from "./image.js";
import * as scores from "./scores.js";
import * as search from "./search.js";
import { fromHash, listeners, load, NO_FILTER, NO_QUERY, set, state, toHash } from "./state.js";

const VIEWS = ["search", "scores", "concepts", "duplicates"];
const THEMES = ["auto", "light", "dark"];
const KEYS = [
  ["/", "to the search field"], ["1 2 3 4", "search, scores, concepts, duplicates"], ["arrows", "move in the grid, on the map, between samples"],
  ["Enter", "open the sample"], ["b", "into the basket, or out of it"], ["m", "more like this"], ["l", "less like this"],
  ["?", "this help"], ["Esc", "close what is open"],
];

const handlers = {
  open: (hit) => set({ open: hit.uid }),
  basket: (hit) => basket.toggle(hit.uid),
  more: (hit) => search.more(hit.uid),
  less: (hit) => search.less(hit.uid),
};

function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  $("theme").replaceChildren("◐", el("span", {}, ` ${name}`));
  $("theme").setAttribute("aria-label", `Theme: ${name}`);
  try {
    localStorage.setItem("mmfilter-theme", name);
  } catch {
    // a browser without storage forgets the theme
  }
}

function show(info) {
  for (const view of VIEWS) {
    $(`view-${view}`).hidden = view !== state.view;
    const tab = document.querySelector(`#tabs [data-view="${view}"]`);
    tab.toggleAttribute("aria-current", view === state.view);
    if (view === state.view) tab.setAttribute("aria-current", "page");
    tab.href = toHash({ ...state, view, open: "" });
  }
  document.title = `${state.q ? `${state.q} · ` : ""}${info.name} · mmfilter`;
  search.sync();
  scores.sync();
  if (state.view === "concepts") concepts.show(info);
  if (state.view === "duplicates") duplicates.show(info);
  detail.sync();
}

function help() {
  const box = $("help");
  box.replaceChildren(button("✕", () => box.close(), { class: "icon close", "aria-label": "Close" }), el("h2", {}, "Keys"),
    el("dl", { class: "keys" }, KEYS.map(([key, text]) => el("div", {}, el("dt", {}, key.split(" ").map((part) => el("kbd", {}, part))), el("dd", {}, text)))),
    el("p", { class: "soft" }, "Drop an image anywhere, or paste one, to search by it. The address holds the view: copy it to share what you see. “More” and “less” add to the query; take a part out by its ✕."),
    el("p", { class: "soft" }, "The service's own interface is described at ", el("a", { href: "/docs" }, "/docs"), "."));
  if (!box.open) box.showModal();
}

function keys(event) {
  const typing = event.target.closest("input:not([type=radio]):not([type=range]), textarea, select");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && event.target === $("q")) return void (search.firstCard() ? grid.focus($("results"), search.firstCard()) : $("q").blur());
  if (typing) {
    if (event.key === "ArrowDown" && event.target === $("q") && search.firstCard()) {
      event.preventDefault();
      grid.focus($("results"), search.firstCard());
    }
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "/") {
    event.preventDefault();
    if (state.view !== "search") set({ view: "search" });
    $("q").focus();
    $("q").select();
  } else if (event.key === "?") help();
  else if (/^[1-4]$/.test(event.key)) set({ view: VIEWS[event.key - 1] });
  else if (/^Arrow(Down|Right)$/.test(event.key) && event.target === document.body && state.view === "search" && search.firstCard()) {
    event.preventDefault();
    grid.focus($("results"), search.firstCard());
  }
}

/** The pool's name, or a choice where the service has several; another pool is another page. */
function pools(info) {
  $("pool").textContent = info.name;
  if ((info.pools || []).length < 2) return;
  const choice = el("select", { "aria-label": "Pool" }, info.pools.map((name) => el("option", { value: name, selected: name === info.name }, name)));
  choice.addEventListener("change", () => {
    location.hash = `#${new URLSearchParams({ pool: choice.value })}`;
    location.reload();
  });
  $("home").after(choice);
  $("pool").hidden = true;
}

function wire(info) {
  know(info);
  pools(info);
  const troubles = [info.trouble, ...(info.gaps || [])].filter(Boolean);
  if (troubles.length) toast(troubles.join(" "), true);
  basket.wire();
  basket.open(info.name);
  basket.onLike(search.likeAll);
  search.wire(info, handlers);
  scores.wire(info, handlers);
  concepts.wire(info);
  duplicates.wire(handlers);
  search.onFilled(detail.steps);
  detail.wire({ ...handlersOf(), step: search.step, by: info.kept_by });
  $("home").addEventListener("click", (event) => {
    event.preventDefault();
    image.drop();
    set({ view: "search", ...NO_QUERY, ...NO_FILTER, open: "" });
  });
  $("help-open").addEventListener("click", help);
  $("skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("results").focus();
  });
  document.addEventListener("keydown", keys);
  for (const box of document.querySelectorAll("dialog")) box.addEventListener("click", (event) => event.target === box && box.close());
  listeners.push(() => show(info));
  addEventListener("popstate", load);
  addEventListener("online", search.retry);
}

const handlersOf = () => ({ more: search.more, less: search.less, alone: search.alone });

function trouble(error) {
  const box = $("trouble");
  box.hidden = false;
  if (error.status === 401 || error.status === 403) {
    const field = el("input", { type: "password", "aria-label": "Token", autocomplete: "off" });
    const form = el("form", { class: "empty" }, el("h3", {}, "This service wants a token"), el("p", {}, "It was started with one; ask whoever started it."), field, el("button", { type: "submit", class: "primary" }, "Go on"));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        await api.signIn(field.value.trim());
        start();
      } catch (refused) {
        toast(refused.status === 401 ? "That is not the token." : refused.message, true);
      }
    });
    box.replaceChildren(form);
    return;
  }
  const gone = error.status === 0;
  box.replaceChildren(empty(gone ? "The service does not answer" : "The service cannot say what it has", gone ? "It may have been stopped. Start it again with the same command, then try again." : error.message, command("serve")), el("div", { class: "center" }, button("Try again", start, { class: "primary" })));
  $("view-search").hidden = true;
}

async function start() {
  let info;
  api.setPool(fromHash(location.hash).pool);
  try {
    info = await api.info();
  } catch (error) {
    trouble(error);
    return;
  }
  $("trouble").hidden = true;
  wire(info);
  load();
}

theme(THEMES.includes(localStorage.getItem("mmfilter-theme")) ? localStorage.getItem("mmfilter-theme") : "auto");
$("theme").addEventListener("click", () => theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme || "auto") + 1) % THEMES.length]));
start();
