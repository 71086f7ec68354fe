// Commands and names for a terminal, of the pool that is served: whole, so that they work as they are pasted.

let folder = ""; // of the run; "" while the service has not said
let folders = [];
let model = "";
let subsets = [];

/** Remember what the commands name: the run's folder, a model of it, and the subsets it has. */
export function know(info) {
  [folder, folders, subsets] = [info.out.replace(/(.)\/+$/, "$1"), info.outs, info.subsets];
  model = info.indices[0]?.model || info.concepts[0]?.replace(/-text$/, "") || info.models[0] || "";
}

const PLAIN = /^[\w@%+=:,./-]+$/;

/** One word for a POSIX shell. */
export const quote = (word) => (PLAIN.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);

/** `mmfilter VERB OUT`, with the model where the verb wants one; "" while the folder or the model is not known. */
export function command(verb) {
  const words = ["mmfilter", verb, ...(verb === "serve" ? folders : [folder])];
  if (!folder || (verb !== "serve" && !model)) return "";
  if (verb !== "serve") words.push("--model", model);
  else if (location.port && location.port !== "1234") words.push("--port", location.port);
  return words.map(quote).join(" ");
}

/** Where a subset's file stands. */
export const subsetPath = (name) => `${folder}/subsets/${name}.npy`;

/** A name that no subset of the pool has yet: what is selected under it writes over nothing. */
export function freeName(name = "selection") {
  for (let n = 1; ; n++) {
    const other = n === 1 ? name : `${name}-${n}`;
    if (!subsets.includes(other)) return other;
  }
}

/** What applies a recipe that was saved as NAME.yaml. */
export const selectCommand = (name) => ["mmfilter", "select", `${name}.yaml`, "--out", folder].map(quote).join(" ");
