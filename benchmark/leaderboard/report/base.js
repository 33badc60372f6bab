"use strict";
// Elements are only ever made with text nodes and attributes: nothing that came from a name or a file is parsed as HTML.
const SVG = "http://www.w3.org/2000/svg";
function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style" && typeof value === "object") for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat(3)) if (child !== null && child !== undefined && child !== false) node.append(child);
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const clear = (node, ...children) => { node.replaceChildren(...children.flat(3).filter((c) => c)); return node; };

async function read(id) {
  const node = document.getElementById(id);
  if (node.type === "application/json") return JSON.parse(node.textContent);
  const bytes = Uint8Array.from(atob(node.textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}
const once = (make) => { let made; return () => (made ??= make()); };
let DATA = null;
const details = once(() => read("details"));
const embedded = once(() => read("bundles"));

// Bundles of arrays: embedded, or a script beside the page that calls adlbenchBundle.
const arrived = new Map(), waiting = new Map();
window.adlbenchBundle = (name, content) => { arrived.set(name, content); waiting.get(name)?.forEach((go) => go()); };
const TYPES = { int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array, float32: Float32Array };
async function bundle(name) {
  if (!/^[0-9a-f]{16}$/.test(name)) throw new Error("not a bundle");
  const inside = (await embedded())[name];
  if (inside) arrived.set(name, inside);
  if (!arrived.has(name)) await new Promise((go, fail) => {
    const others = waiting.get(name);
    if (others) { others.push(go); return; }
    waiting.set(name, [go]);
    document.head.append(el("script", { src: `report_files/${name}.js`, onerror: () => fail(new Error("missing")) }));
  });
  const result = {};
  for (const [key, { type, shape, data }] of Object.entries(arrived.get(name))) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    result[key] = new TYPES[type](bytes.buffer); result[key].shape = shape;
  }
  return result;
}

// ------------------------------------------------------------------------------------------------------------ numbers
function number(x, digits = 4) {
  if (x === null || x === undefined || !isFinite(x)) return "–";
  const size = Math.abs(x);
  if (x !== 0 && (size >= 1e6 || size < 1e-3)) return x.toExponential(2);
  const place = x === 0 ? 0 : Math.floor(Math.log10(size));
  const decimals = Math.max(0, Math.min(digits - 1 - place, Math.max(digits, 1 - place)));
  return x.toLocaleString("en-US", { minimumFractionDigits: x === 0 ? 0 : decimals, maximumFractionDigits: decimals });
}
const signed = (x) => (x === null || x === undefined ? "–" : (x >= 0 ? "+" : "−") + number(Math.abs(x)));
const ARROW = { up: "↑", down: "↓" };
const COST = { throughput: "throughput", latency_ms: "latency, ms", memory_mb: "memory, MB", train_seconds: "training, s", num_parameters: "parameters" };
const costTitle = (name, board) => (name === "throughput" ? `${board.unit}/s` : COST[name]);

// ------------------------------------------------------------------------------------------------------------- colours
const dark = () => document.documentElement.classList.contains("dark");
const colour = (index) => `var(--c${index % 8})`;
const BLUES = [[8, 48, 107], [8, 81, 156], [33, 113, 181], [78, 146, 205], [140, 187, 226], [192, 215, 239], [226, 236, 247]];
function shade(share) { // 0 the best: dark blue; 1 the last: nearly white
  const at = Math.min(Math.max(share, 0), 1) * (BLUES.length - 1), low = Math.min(Math.floor(at), BLUES.length - 2);
  return BLUES[low].map((v, i) => Math.round(v + (at - low) * (BLUES[low + 1][i] - v)));
}
function ink(rgb) { // black or white, whichever is easier to read
  const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}
const painted = (rgb) => ({ background: `rgb(${rgb})`, color: ink(rgb) });
function hue(index) { // as benchmark/tasks/point_pictures.py
  const h = (0.76 + index * 0.302776) % 1, s = Math.floor(index / 3) % 2 ? 0.6 : 1, v = [0.95, 0.75, 0.5][index % 3];
  const f = (n) => { const k = (n + h * 6) % 6; return Math.round(255 * (v - v * s * Math.max(0, Math.min(k, 4 - k, 1)))); };
  return [f(5), f(3), f(1)];
}

// --------------------------------------------------------------------------------------------------------------- widgets
function select(label, options, value, change) {
  const node = el("select", { onchange: () => change(node.value) }, options.map(([key, text]) => el("option", { value: key, selected: String(key) === String(value) }, text)));
  return el("label", {}, `${label} `, node);
}
function pressed(texts, value, change, label) { // a row of buttons of which one is on
  const row = el("div", { class: "tabs", role: "group", "aria-label": label });
  texts.forEach(([key, text]) => row.append(el("button", { type: "button", "aria-pressed": String(key === value), onclick: (event) => {
    row.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", "false"));
    event.currentTarget.setAttribute("aria-pressed", "true"); change(key);
  } }, text)));
  return row;
}
const card = (title, ...children) => el("section", { class: "card" }, title && el("h2", {}, title), children);
const scroll = (label, table) => el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": label }, table);
const facts = (pairs) => el("dl", { class: "facts" }, pairs.filter((p) => p && p[1] !== null && p[1] !== undefined && p[1] !== "").map(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]));
let tip = null;
function hint(node, make) { // shown at the pointer, and at a node that has the focus
  const show = (x, y) => { hide(); tip = el("div", { class: "tip" }, make()); document.body.append(tip); const w = tip.offsetWidth, h = tip.offsetHeight;
    tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - w - 4))}px`; tip.style.top = `${y + h + 20 > innerHeight ? y - h - 8 : y + 14}px`; };
  const hide = () => { tip?.remove(); tip = null; };
  node.addEventListener("pointerenter", (e) => show(e.clientX, e.clientY));
  node.addEventListener("pointerleave", hide);
  node.addEventListener("focus", () => { const box = node.getBoundingClientRect(); show(box.right, box.top); });
  node.addEventListener("blur", hide);
  return node;
}
