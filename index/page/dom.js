// Small helpers. Data reaches the document as text nodes and properties only: nothing is ever parsed as HTML.

import { imageUrl } from "./api.js";

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.setAttribute("class", value);
    else if (name === "dataset") Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const button = (text, onclick, attributes) => el("button", { type: "button", onclick, ...attributes }, text);

/** A text of unknown script and content, in its own direction. */
export const words = (text, className) => el("span", { dir: "auto", class: className }, String(text ?? ""));

export const count = (n) => Math.round(n).toLocaleString("en-US");

/** A value at a readable precision: whole numbers whole, others to `digits` significant ones. */
export function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "none";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  return size >= 1e6 || size < 1e-4 ? value.toExponential(2) : String(Number(value.toPrecision(digits)));
}

/** A score on a card: three digits after the point, so that scores line up; more where that would say nothing. */
export function short(value, column = "score") {
  if (typeof value !== "number" || (Number.isInteger(value) && !/score|similarity|density/.test(column))) return number(value);
  const size = Math.abs(value);
  return size >= 100 || (size && size < 0.001) ? number(value, 2) : size >= 10 ? value.toFixed(1) : value.toFixed(3);
}

export const share = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "0 %");

/** `clip_b32_similarity_score` as people say it: `clip b32 similarity`. */
export const say = (column) => column.replace(/_score$/, "").replaceAll("_", " ");

let hiding = 0;
export function toast(text, bad = false) {
  const box = $("toast");
  if (box.matches(":popover-open")) box.hidePopover();
  box.showPopover(); // above a dialog that is open
  box.textContent = text;
  box.className = bad ? "bad" : "";
  clearTimeout(hiding);
  hiding = setTimeout(() => box.hidePopover(), bad ? 7000 : 2600);
}

export function debounce(wait, call) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...given), wait);
  };
}

/** Tell a user what is missing, and the command that makes it. */
export function empty(title, text, command) {
  return el("div", { class: "empty" }, el("h3", {}, title), el("p", {}, text),
    command && el("div", { class: "command" }, el("code", {}, command), button("Copy", () => copy(command))));
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "sr" });
    area.value = text;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast("Copied");
}

/** A thumbnail that loads when it comes near the screen, and says so when its tar is gone. */
export function picture(uid, text, side = 256) {
  const box = el("span", { class: "pic" });
  const image = el("img", { alt: (text || "").slice(0, 200) || "no caption", loading: "lazy", decoding: "async", draggable: "false" });
  image.addEventListener("error", () => image.replaceWith(el("span", { class: "gone" }, "image not at hand")));
  image.src = imageUrl(uid, side);
  box.append(image);
  return box;
}
