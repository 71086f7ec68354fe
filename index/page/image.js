// The image that a user drops, pastes or picks: shown on a canvas (a page of this policy loads no blob) and sent as base64.
import { $, toast } from "./dom.js";

const AS_IT_IS = 1_500_000; // bytes; a larger file is drawn smaller first
const SIDE = 768; // px, the longer side then
const KNOWN = ["image/jpeg", "image/png", "image/webp"];

let base64 = "";
export const current = () => base64;

export function drop() {
  base64 = "";
  $("query-image").hidden = true;
}

const encode = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

function draw(canvas, bitmap, width, height, fit) {
  const scale = fit(width / bitmap.width, height / bitmap.height);
  canvas.width = fit === Math.min ? Math.max(1, Math.round(bitmap.width * scale)) : width;
  canvas.height = fit === Math.min ? Math.max(1, Math.round(bitmap.height * scale)) : height;
  const [w, h] = [bitmap.width * scale, bitmap.height * scale];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
}

async function take(file) {
  const bitmap = await createImageBitmap(file);
  let blob = file;
  if (file.size > AS_IT_IS || !KNOWN.includes(file.type)) {
    const canvas = document.createElement("canvas");
    draw(canvas, bitmap, SIDE, SIDE, Math.min);
    blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  }
  base64 = await encode(blob);
  draw($("query-image"), bitmap, 88, 88, Math.max);
  $("query-image").hidden = false;
}

/** Search when an image comes in, by whichever way. */
export function wire(found) {
  const use = async (file) => {
    if (!file) return;
    try {
      await take(file);
    } catch {
      toast("That file is not an image that this browser can read.", true);
      return;
    }
    found();
  };
  const image = (items) => [...(items || [])].find((item) => item.type.startsWith("image/"));
  $("file").addEventListener("change", (event) => {
    use(event.target.files[0]);
    event.target.value = "";
  });
  addEventListener("paste", (event) => {
    const file = image(event.clipboardData?.files);
    if (file) use(file);
  });
  const veil = $("drop");
  const files = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => files(event) && (veil.hidden = false));
  addEventListener("dragover", (event) => files(event) && event.preventDefault());
  addEventListener("dragleave", (event) => !event.relatedTarget && (veil.hidden = true));
  addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    veil.hidden = true;
    const file = image(event.dataTransfer.files);
    if (file) use(file);
    else toast("Drop an image file.", true);
  });
}
