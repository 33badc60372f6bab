"use strict";
// Before and after: what a comparison of two commits found, and the course of quality and speed over many.
const OUTCOME = { pass: ["✓", "var(--c2)", "circle"], slower: ["✗", "var(--c1)", "square"], heavier: ["✗", "var(--c1)", "square"], worse: ["✗", "var(--c1)", "square"], inconclusive: ["?", "var(--c4)", "diamond"] };
const outcome = (name) => OUTCOME[name] || ["!", "var(--soft)", "ring"];
const percent = (x) => (x === null || x === undefined ? "–" : `${x >= 0 ? "+" : "−"}${Math.abs(100 * x).toFixed(1)} %`);
function bar(row, reach) { // the estimate with its interval; below it the same code against itself
  const W = 260, H = 24, x = (v) => W / 2 + (W / 2 - 8) * Math.max(-1, Math.min(1, v / reach)), [, paint, mark] = outcome(row.outcome), [low, at, high] = row.change;
  return svg("svg", { viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: "img", "aria-label": `${percent(at)}${low === null ? "" : `, interval ${percent(low)} to ${percent(high)}`}` },
    svg("rect", { x: x(-0.03), width: x(0.03) - x(-0.03), y: 0, height: H, fill: "var(--lean)" }), svg("line", { x1: W / 2, x2: W / 2, y1: 0, y2: H, stroke: "var(--soft)" }),
    row.control && svg("line", { x1: x(row.control[0]), x2: x(row.control[2]), y1: 18, y2: 18, stroke: "var(--soft)", "stroke-width": 2.5, opacity: 0.6 }),
    low !== null && svg("line", { x1: x(low), x2: x(high), y1: 9, y2: 9, stroke: paint, "stroke-width": 2.5 }), marker(MARKERS.includes(mark) ? mark : "circle", x(at), 9, 4.5, paint));
}
function comparisonCard(c) {
  const timed = c.speed.filter((r) => r.change && r.change[1] !== null), reach = Math.min(1, 1.1 * Math.max(0.08, ...timed.flatMap((r) => r.change.concat(r.control || [])).filter((v) => v !== null).map(Math.abs)));
  const word = (r) => el("td", { title: r.reason }, `${outcome(r.outcome)[0]} ${r.outcome}`), head = (names) => el("thead", {}, el("tr", {}, names.map((n) => el("th", { scope: "col" }, n))));
  return card("Before and after", el("p", {}, `${c.head.join(", ")} against ${c.base.join(", ")}: `, el("strong", {}, c.verdict), `. ${c.hardware}; ${c.started.slice(0, 16).replace("T", " ")}.`),
    c.speed.length ? scroll("Changes of time and memory", el("table", { class: "changes" }, head(["cell", "of", `${percent(-reach)} … ${percent(reach)}`, "change", "verdict"]), el("tbody", {}, c.speed.map((r) => el("tr", {}, el("th", { scope: "row" }, r.group), el("td", {}, r.what), el("td", {}, r.change && r.change[1] !== null ? bar(r, reach) : ""), el("td", {}, r.change ? percent(r.change[1]) : "–"), word(r)))))) : null,
    c.speed.length ? el("p", { class: "note" }, "Relative change of time (or peak memory), right is more. Bars: 99 % intervals; grey: the same code against itself in the same job; the band of ±3 % counts as nothing.") : null,
    c.accuracy.length ? scroll("Changes of quality", el("table", { class: "changes" }, head(["cell", "metric", "before", "after", "change", "margin", "seeds", "verdict"]), el("tbody", {}, c.accuracy.map((r) => el("tr", {}, el("th", { scope: "row" }, r.group), el("td", {}, r.metric || "all"), el("td", {}, number(r.base)), el("td", {}, number(r.head)), el("td", {}, signed(r.change)), el("td", {}, number(r.margin)), el("td", {}, r.seeds === undefined ? "–" : String(r.seeds)), word(r)))))) : null,
    el("pre", { tabindex: 0, "aria-label": "Command of the comparison" }, c.command));
}
function coursesCard(board, index) { // over commits, in the order in which they were first run
  const found = DATA.courses.filter((c) => c.board === index);
  if (!found.length) return null;
  const commits = [...new Map(found.flatMap((c) => c.points).sort((a, b) => a[1] - b[1]).map((p) => [p[0], p[1]])).keys()], indices = new Map(board.rows.map((r, i) => [r[M], i]));
  const quantities = [...new Set(found.map((c) => c.quantity))], holder = el("div"), named = (c) => method(c.method) + (board.instances.length > 1 ? `, ${c.instance}` : "");
  const draw = (quantity) => {
    const shown = found.filter((c) => c.quantity === quantity), steps = shown.flatMap((c) => c.steps.map(([i, before, after, relative]) => el("li", {}, `${c.points[i][0]}: ${named(c)} from ${number(before)} to ${number(after)} (${percent(relative)})`)));
    clear(holder, el("figure", {}, lines(shown.map((c) => ({ name: named(c), x: c.points.map((p) => commits.indexOf(p[0]) + 1), y: c.points.map((p) => p[2]), index: indices.get(c.method) ?? 0, hint: `${named(c)}\n${c.points.map((p) => `${p[0]} ${number(p[2])}`).slice(-8).join("\n")}` })), { x: { label: `commits, ${commits[0]} to ${commits[commits.length - 1]}` }, y: { label: quantity } }, `${quantity} over commits`),
      el("figcaption", {}, "Mean over the seeds that ran at a commit. Speeds of different days are a trend and no verdict.")), steps.length ? [el("h3", {}, "Steps"), el("ul", { class: "small" }, steps)] : null);
  };
  draw(quantities[0]);
  return card("Over commits", el("div", { class: "tools" }, select("Quantity", quantities.map((q) => [q, q]), quantities[0], draw)), holder);
}
