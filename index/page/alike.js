// What a duplicate is to the sample that is kept for it, in words: each number is of the two that stand beside it.
import { count, el, picture } from "./dom.js";
import { set } from "./state.js";

export const KINDS = {
  semantic: "Semantic: the cosine of the two embeddings",
  perceptual: "Perceptual: how many of the 64 bits of the two hashes differ",
  exact: "Exact: the files are the same bytes",
};

/** The cosine's last digits matter near 1: 0.99996 is not 1. */
export function cosine(value) {
  const text = value.toFixed(3);
  return text === "1.000" && value < 1 ? "> 0.999" : text;
}

const bits = (told) => (told.bits === null ? null : `${told.bits} of 64 bits apart`);
const near = (told) => (told.cosine === null ? null : `cosine ${cosine(told.cosine)}`);

/** [what the kind measures of the two, what else is known of them]. */
export function numbers(told) {
  if (told.same_file) return ["same file", null];
  if (told.kind === "perceptual") return [bits(told) || "not measured", near(told)];
  const others = [near(told), bits(told)].filter(Boolean);
  return [others[0] || "not measured", others[1] || null];
}

/** Of a link of a chain: the one number of its own kind. */
const link = (step) => (step.same_file ? "same file" : (step.kind === "perceptual" ? bits(step) : near(step)) || bits(step) || "alike");

/** The samples over which a duplicate joined the kept one, each with its likeness to the one before. */
function chain(told) {
  if (told.direct !== false) return null;
  if (!told.chain) return el("p", { class: "joined" }, "Joined over other samples, which cannot be told.");
  const between = told.chain.slice(0, -1);
  const open = (uid) => (event) => {
    event.stopPropagation();
    set({ open: uid });
  };
  const step = (one, last) => el("li", {}, el("span", { class: "soft" }, link(one)),
    last ? el("span", {}, "the kept one") : el("button", { type: "button", class: "face", title: one.uid, "aria-label": `Open ${one.uid}`, onclick: open(one.uid) }, picture(one.uid, "", 64)));
  const all = el("ol", { class: "chain" }, told.chain.map((one, i) => step(one, i === told.chain.length - 1)));
  if (between.length === 1) return el("div", { class: "joined" }, el("p", {}, "Joined through"), all);
  return el("details", { class: "joined" }, el("summary", {}, `Joined through ${count(between.length)} others`), all);
}

/** The kind, the numbers and the chain, for below a picture or in a list. */
export function likeness(told) {
  const [main, other] = numbers(told);
  const model = told.cosine === null ? "" : `; cosine${told.modality === "text" ? " of captions" : ""} by ${told.model}`;
  return el("div", { class: "likeness" },
    el("div", { class: "lead-line" }, el("span", { class: `tag ${told.kind}`, title: KINDS[told.kind] || "" }, told.kind || "kind not known"),
      el("b", { class: "value", title: `of this picture and the kept one${model}` }, main)),
    other && el("p", { class: "soft" }, other),
    told.kind === "exact" && !told.same_file && el("p", { class: "soft" }, "not the same file as the kept one"),
    chain(told));
}
