// The map of concepts: a circle each, its area the concept's size, with the first exemplar in it where there is room.
import { imageUrl } from "./api.js";
import { $, count, svg } from "./dom.js";

const MOST = 1500; // circles that are drawn; the largest
const PICTURES = 120;
const ROOM = 14_000; // square pixels of the map for one label
const CROWDED = 500; // up to so many, circles that overlap are pushed apart

let nodes = [];
let view = { scale: 1, x: 0, y: 0 };
let size = { width: 800, height: 520 };
let pick = () => {};
let marks = { open: -1, without: new Set() };

export const name = (concept) => (concept.label || []).slice(0, 3).join(", ") || `concept ${concept.id}`;

/** Lay the concepts out for the card's size; `onpick(id)` when one is chosen. */
export function lay(concepts, onpick) {
  pick = onpick;
  const box = $("map-card").getBoundingClientRect();
  size = { width: Math.max(280, box.width), height: Math.max(300, box.height) };
  const largest = [...concepts].sort((a, b) => b.size - a.size).slice(0, MOST);
  const total = largest.reduce((sum, concept) => sum + concept.size, 0) || 1;
  const unit = Math.sqrt((0.34 * size.width * size.height) / (Math.PI * total));
  const most = Math.min(size.width, size.height) / 7;
  const radius = (concept) => Math.min(most, Math.max(4, unit * Math.sqrt(concept.size)));
  const pad = 34;
  nodes = largest.map((concept) => ({
    concept, r: radius(concept),
    x: pad + concept.x * (size.width - 2 * pad), y: pad + (1 - concept.y) * (size.height - 2 * pad),
  }));
  if (nodes.length <= CROWDED) spread();
  view = { scale: 1, x: 0, y: 0 };
  draw();
}

/** Push overlapping circles apart, a little at a time, and keep them on the map. */
function spread() {
  for (let round = 0; round < 120; round++) {
    let moved = false;
    nodes.forEach((a, i) => {
      for (let j = i + 1; j < nodes.length; j++) {
        const b = nodes[j];
        const [dx, dy] = [b.x - a.x || 0.01 * (j - i), b.y - a.y || 0.01];
        const far = Math.hypot(dx, dy);
        const lack = a.r + b.r + 2 - far;
        if (lack <= 0) continue;
        const by = (0.5 * lack) / far;
        [a.x, a.y, b.x, b.y] = [a.x - dx * by, a.y - dy * by, b.x + dx * by, b.y + dy * by];
        moved = true;
      }
    });
    for (const node of nodes) {
      node.x = Math.min(size.width - node.r - 2, Math.max(node.r + 2, node.x));
      node.y = Math.min(size.height - node.r - 12, Math.max(node.r + 2, node.y));
    }
    if (!moved) break;
  }
}

/** Show which concept is open and which are excluded; the circles stay, and with them the keyboard's place. */
export function mark(open, without) {
  marks = { open, without: new Set(without) };
  $("map").querySelectorAll(".concept").forEach(paint);
}

function paint(group) {
  const { concept } = group;
  const out = marks.without.has(concept.id);
  const label = `${name(concept)}: ${count(concept.size)} samples${out ? ", excluded" : ""}`;
  group.classList.toggle("without", out);
  group.classList.toggle("open", concept.id === marks.open);
  group.setAttribute("aria-label", label);
  group.querySelector("title").textContent = label;
}

/** Labels that do not cross one that stands already, the largest concepts first. */
function labels(placed) {
  const taken = [];
  const found = [];
  for (const { node, x, y, r } of placed) {
    if (found.length * ROOM > size.width * size.height || r < 9) break;
    const text = name(node.concept).split(", ").slice(0, 2).join(", ").slice(0, 26);
    const box = { left: x - text.length * 3.1, right: x + text.length * 3.1, top: y + r + 1, bottom: y + r + 14 };
    const free = taken.every((other) => box.right < other.left || box.left > other.right || box.bottom < other.top || box.top > other.bottom);
    if (!free || box.left < 2 || box.right > size.width - 2 || box.bottom > size.height) continue;
    taken.push(box);
    found.push(svg("text", { x, y: y + r + 11, class: "label" }, text));
  }
  return found;
}

function circle({ node, x, y, r }, index) {
  const { concept } = node;
  const group = svg("g", { class: "concept", tabindex: index === 0 ? "0" : "-1", role: "button", "data-id": concept.id }, svg("title"), svg("circle", { cx: x, cy: y, r }));
  group.concept = concept;
  paint(group);
  if (index < PICTURES && r >= 8 && concept.exemplars?.length) {
    const image = svg("image", { href: imageUrl(concept.exemplars[0], 128), x: x - r, y: y - r, width: 2 * r, height: 2 * r, preserveAspectRatio: "xMidYMid slice" });
    image.addEventListener("error", () => image.remove());
    group.append(image, svg("circle", { class: "ring", cx: x, cy: y, r }));
  }
  return group;
}

function draw() {
  const map = $("map");
  map.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  const grow = Math.sqrt(view.scale);
  const placed = nodes
    .map((node) => ({ node, x: node.x * view.scale + view.x, y: node.y * view.scale + view.y, r: node.r * grow }))
    .filter(({ x, y, r }) => x + r > 0 && y + r > 0 && x - r < size.width && y - r < size.height);
  map.replaceChildren(svg("g", {}, placed.map(circle).reverse(), labels(placed)));
  map.style.touchAction = view.scale > 1 ? "none" : "pan-y";
}

function zoom(by, x = size.width / 2, y = size.height / 2) {
  const scale = Math.min(24, Math.max(1, view.scale * by));
  const ratio = scale / view.scale;
  view = { scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio };
  hold();
}

function hold() {
  view.x = Math.min(0, Math.max(size.width * (1 - view.scale), view.x));
  view.y = Math.min(0, Math.max(size.height * (1 - view.scale), view.y));
  draw();
}

/** From one circle to the nearest in an arrow key's direction. */
function toward(from, key) {
  const [ax, ay] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[key];
  let best = null;
  for (const node of nodes) {
    const [dx, dy] = [node.x - from.x, node.y - from.y];
    const along = dx * ax + dy * ay;
    const cost = along + 2.5 * Math.abs(dx * ay + dy * ax);
    if (node !== from && along > 1 && (!best || cost < best.cost)) best = { node, cost };
  }
  return best?.node;
}

function focus(id) {
  const target = $("map").querySelector(`[data-id="${id}"]`);
  $("map").querySelectorAll('[tabindex="0"]').forEach((other) => other.setAttribute("tabindex", "-1"));
  target?.setAttribute("tabindex", "0");
  target?.focus();
}

/** Drag a map that is zoomed in: it moves as a whole, and is drawn anew when it comes to rest. */
function wireDrag(map) {
  let from = null;
  let moved = { dx: 0, dy: 0 };
  const far = () => Math.hypot(moved.dx, moved.dy) > 5;
  map.addEventListener("pointerdown", (event) => {
    from = { x: event.clientX, y: event.clientY };
    moved = { dx: 0, dy: 0 };
  });
  addEventListener("pointermove", (event) => {
    if (!from) return;
    moved = { dx: event.clientX - from.x, dy: event.clientY - from.y };
    if (view.scale > 1 && far()) map.firstElementChild?.setAttribute("transform", `translate(${moved.dx} ${moved.dy})`);
  });
  addEventListener("pointerup", () => {
    if (from && view.scale > 1 && far()) {
      view = { ...view, x: view.x + moved.dx, y: view.y + moved.dy };
      hold();
    }
    from = null;
  });
  map.addEventListener("click", (event) => {
    const id = event.target.closest("[data-id]")?.dataset.id;
    if (id !== undefined && !far()) pick(Number(id));
  });
}

export function wire() {
  const map = $("map");
  wireDrag(map);
  map.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
    event.preventDefault();
    const box = map.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  map.addEventListener("keydown", (event) => {
    const id = Number(event.target.closest("[data-id]")?.dataset.id ?? -1);
    if (event.key === "Enter" || event.key === " ") pick(id);
    else if (event.key.startsWith("Arrow")) {
      const from = nodes.find((node) => node.concept.id === id);
      const to = from && toward(from, event.key);
      if (to) focus(to.concept.id);
    } else return;
    event.preventDefault();
  });
  $("map-card").querySelectorAll("[data-zoom]").forEach((control) => control.addEventListener("click", () => {
    if (control.dataset.zoom === "all") view = { scale: 1, x: 0, y: 0 };
    zoom({ in: 1.5, out: 1 / 1.5, all: 1 }[control.dataset.zoom]);
  }));
}
