"use strict";
// What people would rather look at. Each function returns an element for one exhibit of a run.
const safe = (src) => (/^(report_files\/[0-9a-f]{16}\.png|data:image\/png;base64,)/.test(src) ? src : "");
const tiny = (width) => (width < 220 ? "pixels" : "");
const picture = (src, alt, width) => el("img", { src: safe(src), alt, class: tiny(width), loading: "lazy" });

function compareSlider(left, right, shape) { // two pictures and a slider between them
  const over = el("div", { class: "over" }), edge = el("div", { class: "edge" });
  const frame = el("div", { class: `compare ${tiny(shape.width)}`, style: { "aspect-ratio": `${shape.width}/${shape.height}` } }, picture(right.src, right.name, shape.width), over, edge, el("b", { class: "l" }, left.name), el("b", { class: "r" }, right.name));
  over.append(picture(left.src, left.name, shape.width));
  const slider = el("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": `Share of ${left.name} that is shown over ${right.name}` });
  const set = (v) => { over.style.clipPath = `inset(0 ${100 - v}% 0 0)`; edge.style.left = `${v}%`; slider.value = v; };
  slider.addEventListener("input", () => set(+slider.value));
  const drag = (e) => { if (e.buttons || e.type === "pointerdown") { const box = frame.getBoundingClientRect(); set(Math.max(0, Math.min(100, (100 * (e.clientX - box.left)) / box.width))); } };
  frame.addEventListener("pointerdown", drag); frame.addEventListener("pointermove", drag);
  set(50);
  return el("div", {}, frame, slider);
}
function showViews(exhibit, run) {
  // the left side can be the truth or any other method's picture of the same view
  const others = DATA.runs.filter((r) => r.board === run.board && r.instance === run.instance && r !== run).flatMap((r) => {
    const e = r.exhibits.find((x) => x.kind === "views" && x.title === exhibit.title && x.items.length === exhibit.items.length);
    return e ? [{ key: r.key, name: runName(r), items: e.items }] : [];
  });
  let at = 0, left = "truth";
  const stage = el("div"), thumbs = el("div", { class: "thumbs", role: "group", "aria-label": "Views" });
  const draw = () => {
    const item = exhibit.items[at], other = others.find((o) => o.key === left);
    const first = other ? { name: other.name, src: other.items[at].prediction } : { name: "truth", src: item.truth };
    const panels = el("div", { class: "panels" }, compareSlider(first, { name: runName(run), src: item.prediction }, exhibit));
    if (item.error) panels.append(el("figure", {}, picture(item.error, `Error of view ${at + 1}`, exhibit.width), el("figcaption", {}, "Error: absolute difference, bright from 0.25 on")));
    if (item.depth) panels.append(el("figure", {}, picture(item.depth, `Depth of view ${at + 1}`, exhibit.width), el("figcaption", {}, "Depth: bright is near, white is empty")));
    clear(stage, panels);
    thumbs.querySelectorAll("button").forEach((b, i) => b.setAttribute("aria-pressed", String(i === at)));
  };
  exhibit.items.forEach((item, i) => thumbs.append(el("button", { type: "button", "aria-pressed": "false", "aria-label": `View ${i + 1}`, onclick: () => { at = i; draw(); } }, el("img", { src: safe(item.truth), alt: "", class: tiny(exhibit.width) }))));
  draw();
  return el("div", {}, el("div", { class: "tools" }, select("Compare with", [["truth", "the truth"], ...others.map((o) => [o.key, o.name])], left, (v) => { left = v; draw(); })), thumbs, stage);
}
function cut(src, index, columns, width, height) { // one picture out of a sheet
  const canvas = el("canvas", { width, height, class: "pixels", role: "presentation" }), image = new Image();
  image.onload = () => canvas.getContext("2d").drawImage(image, (index % columns) * width, Math.floor(index / columns) * height, width, height, 0, 0, width, height);
  image.src = safe(src);
  return canvas;
}
function showSamples(exhibit) {
  const stage = el("div", { class: "tiles", role: "img" });
  const draw = (mode) => {
    stage.setAttribute("aria-label", `${exhibit.count} samples, ${mode}`);
    clear(stage, [...Array(exhibit.count).keys()].map((i) => el("div", {}, mode !== "nearest" && cut(exhibit.image, i, exhibit.columns, exhibit.width, exhibit.height), mode !== "samples" && cut(exhibit.nearest, i, exhibit.columns, exhibit.width, exhibit.height))));
  };
  draw("both");
  return el("div", {}, pressed([["both", "samples above their nearest training images"], ["samples", "samples"], ["nearest", "nearest training images"]], "both", draw, "What to show"), stage);
}
function showStrip(exhibit) {
  const frames = [...Array(exhibit.rows).keys()].map(() => el("div")), note = el("span", { class: "note" });
  const set = (step) => { frames.forEach((f, row) => clear(f, cut(exhibit.src, row * exhibit.steps + step, exhibit.steps, exhibit.width, exhibit.height))); note.textContent = `step ${step + 1} of ${exhibit.steps}`; };
  set(0);
  return el("div", {}, el("div", { class: "tiles" }, frames), el("label", {}, "Along the path ", el("input", { type: "range", min: 0, max: exhibit.steps - 1, value: 0, oninput: (e) => set(+e.target.value) })), note,
    el("figure", {}, el("img", { src: safe(exhibit.src), alt: `${exhibit.rows} paths of ${exhibit.steps} pictures between two latent codes`, class: tiny(exhibit.width), style: { width: "100%", "max-width": "56rem", "margin-top": ".5rem" } }), el("figcaption", {}, "Each row is a path between two random codes.")));
}
function itemButtons(exhibit, text, change) {
  return exhibit.items.length > 1 ? pressed(exhibit.items.map((item, i) => [i, text(item, i)]), 0, change, "Items") : null;
}
function threeViews(scenes, orbit) {
  return el("div", { class: "panels three" }, scenes.map(([name, scene]) => el("figure", {}, new View(orbit, scene, name).canvas, el("figcaption", {}, name))));
}
const turnNote = () => el("p", { class: "note" }, "Drag, or use the arrow keys, to turn; + and − zoom; Home resets.");
function showClouds(exhibit) {
  const stage = el("div"), orbit = new Orbit();
  const draw = async (index) => {
    orbit.views = [];
    const { points, truth, prediction } = await bundle(exhibit.items[index].bundle);
    const paint = (labels) => { const out = new Uint8Array(labels.length * 3); labels.forEach((l, i) => out.set(hue(l), 3 * i)); return out; };
    const wrong = new Uint8Array(truth.length * 3); truth.forEach((l, i) => wrong.set(l === prediction[i] ? [165, 170, 178] : [213, 94, 0], 3 * i));
    const present = [...new Set([...truth, ...prediction])].sort((a, b) => a - b);
    clear(stage, threeViews([["truth", { points, colours: paint(truth) }], ["prediction", { points, colours: paint(prediction) }], ["errors in orange", { points, colours: wrong }]], orbit),
      el("ul", { class: "parts" }, present.map((l) => el("li", {}, el("span", { class: "swatch", style: { background: `rgb(${hue(l)})` } }), exhibit.labels[l] ?? String(l)))));
  };
  draw(0).catch(() => clear(stage, el("p", {}, "The file of this point cloud is missing beside the page.")));
  return el("div", {}, itemButtons(exhibit, (item, i) => `${i + 1} (${Math.round(100 * item.right)} %)`, draw), turnNote(), stage);
}
function showMeshes(exhibit, run) {
  const stage = el("div"), orbit = new Orbit();
  const draw = async (index) => {
    orbit.views = [];
    const { points, normals, vertices, faces } = await bundle(exhibit.items[index].bundle);
    const scenes = [["truth (surface points)", { points, normals, colour: [190, 190, 190] }]];
    if (faces.length) scenes.push([`${runName(run)} (mesh of ${exhibit.items[index].faces.toLocaleString("en-US")} faces)`, { points: vertices, faces, colour: [104, 168, 228] }]);
    const distances = faces.length ? errorColours(points, vertices) : null;
    if (distances) scenes.push(["truth, orange where the mesh is far", { points, colours: distances }]);
    clear(stage, threeViews(scenes, orbit), faces.length ? null : el("p", {}, "The reconstruction has no surface."));
  };
  draw(0).catch(() => clear(stage, el("p", {}, "The file of this mesh is missing beside the page.")));
  return el("div", {}, itemButtons(exhibit, (item, i) => `shape ${i + 1}`, draw), turnNote(), stage);
}
function errorColours(points, vertices) { // distance to the nearest vertex, by a grid; saturated at 5 % of the extent
  const cell = 1700, grid = new Map(), key = (x, y, z) => `${x},${y},${z}`, at = (v) => Math.floor(v / cell);
  for (let i = 0; i < vertices.length; i += 3) { const k = key(at(vertices[i]), at(vertices[i + 1]), at(vertices[i + 2])); (grid.get(k) || grid.set(k, []).get(k)).push(i); }
  const out = new Uint8Array(points.length);
  for (let p = 0; p < points.length; p += 3) {
    let best = cell; const [x, y, z] = [at(points[p]), at(points[p + 1]), at(points[p + 2])];
    for (let a = -1; a <= 1; a++) for (let b = -1; b <= 1; b++) for (let c = -1; c <= 1; c++) for (const v of grid.get(key(x + a, y + b, z + c)) || []) best = Math.min(best, Math.hypot(points[p] - vertices[v], points[p + 1] - vertices[v + 1], points[p + 2] - vertices[v + 2]));
    const t = Math.max(0, (best - 350) / (cell - 350)); out.set([170 + t * 43, 175 - t * 81, 182 - t * 182], p);
  }
  return out;
}
function showConfusion(exhibit, run) {
  const { counts, labels } = exhibit, few = labels.length <= 40;
  const table = el("table", { class: "confusion" }, el("caption", { class: "hidden" }, "Confusion matrix: rows are true classes, columns predicted ones"),
    el("thead", {}, el("tr", {}, el("td", {}, "true \\ predicted"), labels.map((l) => el("th", { scope: "col" }, few ? l : "")))),
    el("tbody", {}, counts.map((row, i) => { const sum = row.reduce((a, b) => a + b, 0) || 1; return el("tr", {}, el("th", { scope: "row" }, labels[i]), row.map((n, j) => {
      const t = Math.sqrt(n / sum), base = i === j ? [0, 90, 160] : [200, 70, 10], rgb = n ? base.map((c) => Math.round(255 + t * (c - 255))) : null;
      return el("td", { style: rgb ? painted(rgb) : {}, title: `${labels[i]} taken for ${labels[j]}: ${n}` }, n ? String(n) : ""); })); })));
  return scroll(`Confusion matrix of ${runName(run)}`, table);
}
function showEmbedding(exhibit) {
  const W = 640, H = 480, px = (x) => W / 2 + (x / 1000) * (W / 2 - 14), py = (y) => H / 2 - (y / 1000) * (H / 2 - 14);
  const root = svg("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `t-SNE of ${exhibit.xy.length} test items, coloured by their class; wrong predictions have a ring` });
  const paint = (c) => (exhibit.labels.length <= 8 ? colour(c) : `rgb(${hue(c)})`);
  exhibit.xy.forEach(([x, y], i) => {
    const t = exhibit.truth[i], p = exhibit.prediction[i];
    const g = svg("g", {}, marker(MARKERS[t % 8], px(x), py(y), 4, paint(t)));
    if (t !== p) g.append(svg("circle", { cx: px(x), cy: py(y), r: 8, fill: "none", stroke: "var(--ink)", "stroke-width": 1.6 }));
    root.append(hint(g, () => [t === p ? exhibit.labels[t] : `${exhibit.labels[t]}, taken for ${exhibit.labels[p]}`, exhibit.src && cut(exhibit.src, i, exhibit.columns, exhibit.width, exhibit.height)]));
  });
  return el("figure", { class: "plane" }, root, el("ul", { class: "parts" }, exhibit.labels.map((l, i) => el("li", {}, svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, marker(MARKERS[i % 8], 7, 7, 5, paint(i))), " ", l))),
    el("figcaption", {}, "What the network's last layer is fed, in the plane. Rings: wrong predictions. Distances between clusters mean little."));
}
const MAP_NAMES = { image: "item", occlusion: "occlusion", deconvolution: "deconvolution", attention: "attention" };
function showMaps(exhibit) {
  const columns = exhibit.names.length;
  return el("div", {}, el("p", { class: "note" }, "Occlusion: orange where covering a window lowers the class's score, blue where it raises it. Deconvolution: the class projected back to the pixels. Attention: rollout from the class token."),
    el("div", { class: "maps" }, exhibit.items.map((item, i) => el("figure", {}, el("div", { class: "row", style: { "grid-template-columns": `repeat(${columns},1fr)` } }, exhibit.names.map((n) => picture(item[n], `${MAP_NAMES[n] || n} of item ${i + 1}`, exhibit.width))), el("figcaption", {}, `${exhibit.captions[i]}: ${exhibit.names.map((n) => MAP_NAMES[n] || n).join(", ")}`)))));
}
const showPicture = (exhibit) => el("figure", {}, el("img", { src: safe(exhibit.src), alt: exhibit.title, style: { "max-width": "100%" }, loading: "lazy" }), el("figcaption", {}, exhibit.title));
const SHOW = { views: showViews, samples: showSamples, strip: showStrip, clouds: showClouds, meshes: showMeshes, confusion: showConfusion, embedding: showEmbedding, maps: showMaps, picture: showPicture };
const ORDER = Object.keys(SHOW);
function exhibitTabs(run, chosen, remember) {
  const exhibits = [...run.exhibits].sort((a, b) => ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind));
  if (!exhibits.length) return el("p", { class: "note" }, "This run kept no pictures.");
  const stage = el("div");
  const start = Math.max(0, exhibits.findIndex((e) => e.title === chosen));
  const draw = (i) => { remember?.(exhibits[i].title); clear(stage, SHOW[exhibits[i].kind](exhibits[i], run)); };
  draw(start);
  return el("div", {}, exhibits.length > 1 ? pressed(exhibits.map((e, i) => [i, e.title]), start, draw, "Pictures") : el("h3", {}, exhibits[0].title), stage);
}
