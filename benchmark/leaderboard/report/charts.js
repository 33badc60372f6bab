"use strict";
// Charts as SVG. Every series has a colour, a marker and a name, so that no reader depends on colour alone.
const MARKERS = ["circle", "square", "diamond", "triangle", "cross", "down", "plus", "ring"];
function marker(kind, x, y, r, paint) {
  const p = (points) => svg("polygon", { points: points.map(([a, b]) => `${x + a * r},${y + b * r}`).join(" "), fill: paint });
  switch (kind) {
    case "square": return svg("rect", { x: x - 0.9 * r, y: y - 0.9 * r, width: 1.8 * r, height: 1.8 * r, fill: paint });
    case "diamond": return p([[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]]);
    case "triangle": return p([[0, -1.2], [1.1, 0.9], [-1.1, 0.9]]);
    case "down": return p([[0, 1.2], [1.1, -0.9], [-1.1, -0.9]]);
    case "cross": return svg("path", { d: `M${x - r},${y - r}L${x + r},${y + r}M${x - r},${y + r}L${x + r},${y - r}`, stroke: paint, "stroke-width": 2.4 });
    case "plus": return svg("path", { d: `M${x - 1.2 * r},${y}H${x + 1.2 * r}M${x},${y - 1.2 * r}V${y + 1.2 * r}`, stroke: paint, "stroke-width": 2.4 });
    case "ring": return svg("circle", { cx: x, cy: y, r: 0.9 * r, fill: "none", stroke: paint, "stroke-width": 2.2 });
    default: return svg("circle", { cx: x, cy: y, r, fill: paint });
  }
}
function ticks(low, high, log, wanted = 5) {
  if (log) {
    const a = Math.floor(Math.log10(low)), b = Math.ceil(Math.log10(high)), step = Math.max(1, Math.ceil((b - a) / wanted)), out = [];
    for (let e = a; e <= b; e += step) for (const m of b - a <= 2 ? [1, 2, 5] : [1]) { const v = m * 10 ** e; if (v >= low * 0.999 && v <= high * 1.001) out.push(v); }
    return out.length > 1 ? out : [low, high];
  }
  const raw = (high - low) / wanted || 1, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const out = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) out.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return out;
}
const short = (v) => (Math.abs(v) >= 1e4 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(0).replace("+", "") : String(+v.toPrecision(4)));
// axes: {x: {label, log}, y: {label, log}, height}; draw(frame) gets px(x), py(y) and the group to draw into.
function chart(values, axes, label, draw) {
  const W = innerWidth <= 600 ? 400 : 640, H = axes.height || 340, // letters keep their size on a phone
    L = 62, R = 18, T = 14, B = 46;
  const range = (points, log, axis) => {
    points = points.filter((v) => isFinite(v) && (!log || v > 0));
    if (!points.length) return [log ? 0.1 : 0, 1];
    let low = Math.min(...points), high = Math.max(...points);
    if (axis.from !== undefined) low = Math.min(low, axis.from);
    if (log) { const pad = Math.max((high / low) ** 0.08, 1.15); return [low / pad, high * pad]; }
    const pad = (high - low) * 0.07 || Math.abs(high) * 0.1 || 1;
    return [axis.from !== undefined ? low : low - pad, high + pad];
  };
  const [x0, x1] = range(values.map((v) => v[0]), axes.x.log, axes.x), [y0, y1] = range(values.map((v) => v[1]), axes.y.log, axes.y);
  const place = (v, a, b, log) => (log ? (Math.log(v) - Math.log(a)) / (Math.log(b) - Math.log(a)) : (v - a) / (b - a));
  const px = (v) => L + place(v, x0, x1, axes.x.log) * (W - L - R), py = (v) => H - B - place(v, y0, y1, axes.y.log) * (H - T - B);
  const group = svg("g"), root = svg("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label });
  for (const v of ticks(x0, x1, axes.x.log)) root.append(svg("line", { class: "grid-line", x1: px(v), x2: px(v), y1: T, y2: H - B }), svg("text", { x: px(v), y: H - B + 17, "text-anchor": "middle" }, short(v)));
  for (const v of ticks(y0, y1, axes.y.log)) root.append(svg("line", { class: "grid-line", x1: L, x2: W - R, y1: py(v), y2: py(v) }), svg("text", { x: L - 7, y: py(v) + 4, "text-anchor": "end" }, short(v)));
  root.append(svg("line", { class: "axis", x1: L, x2: W - R, y1: H - B, y2: H - B }), svg("line", { class: "axis", x1: L, x2: L, y1: T, y2: H - B }));
  root.append(svg("text", { x: (L + W - R) / 2, y: H - 8, "text-anchor": "middle" }, axes.x.label), svg("text", { transform: `translate(14,${(T + H - B) / 2}) rotate(-90)`, "text-anchor": "middle" }, axes.y.label), group);
  draw({ group, px, py, L, R, T, B, W, H, x0, x1, y0, y1 });
  return root;
}
function scatter(points, axes, label) {
  // points: {name, x, y, ex, ey, front, index, href}
  const shown = points.filter((p) => isFinite(p.x) && isFinite(p.y) && (!axes.x.log || p.x > 0));
  const corners = shown.flatMap((p) => [[p.x, p.y], [p.x + (p.ex || 0), p.y + (p.ey || 0)], [Math.max(p.x - (p.ex || 0), axes.x.log ? p.x / 2 : -Infinity), p.y - (p.ey || 0)]]);
  return chart(corners, axes, label, (f) => {
    const clamp = (v, a, b) => Math.min(Math.max(v, a), b), cx = (v) => clamp(axes.x.log && v <= 0 ? f.L : f.px(v), f.L, f.W - f.R);
    const front = shown.filter((p) => p.front).sort((a, b) => a.x - b.x);
    if (front.length > 1) { // the staircase between what is reached
      const rising = axes.x.better === "down", order = rising ? front : [...front].reverse();
      let d = `M${f.px(order[0].x)},${f.py(order[0].y)}`;
      for (let i = 1; i < order.length; i++) d += `H${f.px(order[i].x)}V${f.py(order[i].y)}`;
      f.group.append(svg("path", { d, fill: "none", stroke: "var(--soft)", "stroke-width": 1.6, "stroke-dasharray": "5 4" }));
    }
    const used = [];
    for (const p of shown) {
      const paint = colour(p.index), g = svg("g", {});
      if (p.ex) g.append(svg("line", { x1: cx(p.x - p.ex), x2: cx(p.x + p.ex), y1: f.py(p.y), y2: f.py(p.y), stroke: paint, "stroke-width": 1.5, opacity: 0.75 }));
      if (p.ey) g.append(svg("line", { x1: f.px(p.x), x2: f.px(p.x), y1: clamp(f.py(p.y - p.ey), f.T, f.H - f.B), y2: clamp(f.py(p.y + p.ey), f.T, f.H - f.B), stroke: paint, "stroke-width": 1.5, opacity: 0.75 }));
      g.append(marker(MARKERS[p.index % 8], f.px(p.x), f.py(p.y), p.front ? 6 : 4.5, paint));
      if (p.front) g.append(svg("circle", { cx: f.px(p.x), cy: f.py(p.y), r: 10, fill: "none", stroke: "var(--soft)", "stroke-width": 1 }));
      hint(g, () => `${p.name}${p.front ? " (on the front)" : ""}\n${axes.y.label}: ${p.ytext}\n${axes.x.label}: ${p.xtext}`);
      f.group.append(g);
      if (shown.length <= 25) {
        const left = f.px(p.x) > f.W * 0.7; let y = f.py(p.y) - 10;
        while (used.some(([ux, uy, l]) => l === left && Math.abs(ux - f.px(p.x)) < 110 && Math.abs(uy - y) < 12)) y += 13;
        used.push([f.px(p.x), y, left]);
        f.group.append(svg("text", { class: "label", x: f.px(p.x) + (left ? -9 : 9), y, "text-anchor": left ? "end" : "start" }, p.name));
      }
    }
  });
}
function lines(series, axes, label) {
  // series: {name, x: [], y: [], index, faint}; a legend switches them by name
  const hidden = new Set(), holder = el("div"), names = [...new Map(series.map((s) => [s.name, s.index])).entries()];
  const redraw = () => {
    const shown = series.filter((s) => !hidden.has(s.name));
    clear(holder, chart(shown.flatMap((s) => s.x.map((x, i) => [x, s.y[i] ?? NaN])), axes, label, (f) => shown.forEach((s) => {
      const points = s.x.map((x, i) => [x, s.y[i]]).filter(([x, y]) => y !== null && isFinite(x) && isFinite(y) && (!axes.x.log || x > 0) && (!axes.y.log || y > 0));
      if (!points.length) return;
      const d = s.step ? points.map(([x, y], i) => (i ? `H${f.px(x)}V${f.py(y)}` : `M${f.px(x)},${f.py(y)}`)).join("") : "M" + points.map(([x, y]) => `${f.px(x).toFixed(1)},${f.py(y).toFixed(1)}`).join("L");
      f.group.append(hint(svg("path", { d, fill: "none", stroke: colour(s.index), "stroke-width": 2, "stroke-linejoin": "round", opacity: s.faint ? 0.55 : 1, "stroke-dasharray": ["", "7 3", "2 3"][Math.floor(s.index / 8) % 3] || null }), () => s.hint || s.name));
      for (let k = 1; k <= 4; k++) { const q = points[Math.min(points.length - 1, Math.floor((k * points.length) / 4 - 1))]; if (q) f.group.append(marker(MARKERS[s.index % 8], f.px(q[0]), f.py(q[1]), 3.2, colour(s.index))); }
    })));
  };
  redraw();
  const legend = el("div", { class: "legend", role: "group", "aria-label": "Series" }, names.map(([name, index]) => el("button", { type: "button", "aria-pressed": "true", onclick: (event) => {
    hidden.has(name) ? hidden.delete(name) : hidden.add(name);
    event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(name))); redraw();
  } }, svg("svg", { viewBox: "0 0 22 12", "aria-hidden": "true" }, svg("line", { x1: 0, x2: 22, y1: 6, y2: 6, stroke: colour(index), "stroke-width": 2 }), marker(MARKERS[index % 8], 11, 6, 3.6, colour(index))), name)));
  return el("div", {}, holder, legend);
}
