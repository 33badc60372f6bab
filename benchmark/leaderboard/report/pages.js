"use strict";
const [M, RANK, TRIVIAL, SEEDS, METRICS, COSTS, GAP_TRIVIAL, GAP_PAPER, SOURCE, ABSENT, FAILED] = Array(11).keys();
const main = document.getElementById("main");
const method = (i) => DATA.methods[i];
const runName = (run) => { const b = DATA.boards[run.board], many = DATA.runs.filter((r) => r.board === run.board && r.method === run.method).length > 1; return method(run.method) + (b.instances.length > 1 ? `, ${run.instance}` : "") + (many ? `, seed ${run.seed}` : ""); };
const boardTitle = (b) => `${b.dataset}${b.instances.length === 1 && b.instances[0] !== "all" ? ` (${b.instances[0]})` : ""}`;
const primary = (b) => b.metrics.findIndex((m) => m.name === b.primary);
const setting = (b) => `${b.fidelity}, ${b.hardware}`;
const metricTitle = (m) => `${m.name}${m.unit ? ` ${m.unit}` : ""} ${ARROW[m.direction]}`;
function share(row, board) { // normalised rank: 0 the best, 1 the last
  const last = Math.max(...board.rows.map((r) => r[RANK] || 0));
  return row[RANK] === null ? null : last > 1 ? (row[RANK] - 1) / (last - 1) : 0;
}
const lastRanks = new Map();
function quickShare(row, index) { // as above, the largest rank of a table looked up once
  if (!lastRanks.has(index)) lastRanks.set(index, DATA.boards[index].rows.reduce((a, r) => Math.max(a, r[RANK] || 0), 0));
  const last = lastRanks.get(index);
  return last > 1 ? (row[RANK] - 1) / (last - 1) : 0;
}

// -------------------------------------------------------------------------------------------------------------- overview
const PAGE = 60; // rows of a matrix at a time
function matrix(task, boards) {
  const rows = new Map();
  boards.forEach(([index, b]) => b.rows.forEach((r) => { if (!rows.has(r[M])) rows.set(r[M], new Map()); rows.get(r[M]).set(index, r); }));
  const order = [...rows].map(([m, cells]) => { let sum = 0, n = 0; cells.forEach((r, i) => { if (r[RANK] !== null) { sum += quickShare(r, i); n++; } }); return [m, cells, n ? sum / n : 2, n]; }).sort((a, b) => a[2] - b[2] || b[3] - a[3] || (method(a[0]) < method(b[0]) ? -1 : 1));
  let shown = PAGE, wanted = "";
  const body = el("tbody"), more = el("button", { type: "button", onclick: () => { shown += 4 * PAGE; draw(); } });
  const draw = () => {
    const matching = order.filter(([m]) => method(m).toLowerCase().includes(wanted));
    clear(body, matching.slice(0, shown).map(([m, cells]) => el("tr", {}, el("th", { scope: "row", title: method(m) }, method(m)), boards.map(([index, b]) => {
      const r = cells.get(index);
      if (!r) return el("td", {}, el("span", { class: "hidden" }, "not run"));
      const v = r[METRICS][primary(b)], place = r[RANK];
      if (!v) return el("td", {}, el("a", { href: `#/table/${index}`, title: Object.entries(r[FAILED] || {}).map(([k, n]) => `${n} ${k}`).join(", ") }, "–", el("small", {}, r[FAILED] ? Object.keys(r[FAILED])[0] : "no value")));
      return el("td", {}, el("a", { href: `#/table/${index}`, style: painted(shade(quickShare(r, index))), title: `${method(m)} on ${boardTitle(b)}: ${b.primary} ${v[2]}, rank ${place} of ${b.rows.length}` }, number(v[0]), el("small", {}, `rank ${place}`)));
    }))));
    more.textContent = `Show more of ${matching.length} methods`; more.hidden = matching.length <= shown;
  };
  draw();
  const tools = order.length > 12 ? el("div", { class: "tools" }, el("label", {}, "Filter methods ", el("input", { type: "search", oninput: (e) => { wanted = e.target.value.toLowerCase(); shown = PAGE; draw(); } }))) : null;
  const splits = boards.some(([, b]) => b.split);
  return card(task.replace(/_/g, " "), tools, scroll(`Ranks of ${task}`, el("table", { class: "matrix" }, el("caption", { class: "hidden" }, `Methods of ${task} by dataset, coloured by rank`),
    el("thead", {}, el("tr", {}, el("td", {}), boards.map(([index, b]) => el("th", { scope: "col", title: boardTitle(b) }, el("a", { href: `#/table/${index}` }, boardTitle(b)), el("br"), el("span", { class: "note" }, metricTitle(b.metrics[primary(b)])))))), body)), more,
    splits && el("p", { class: "note" }, "Some tables are split because their cells cannot be compared; each says why."));
}
function overview() {
  const settings = new Map();
  DATA.boards.forEach((b, i) => { if (!settings.has(setting(b))) settings.set(setting(b), []); settings.get(setting(b)).push([i, b]); });
  const names = [...settings.keys()].sort((a, b) => settings.get(b).reduce((s, [, x]) => s + x.cells, 0) - settings.get(a).reduce((s, [, x]) => s + x.cells, 0));
  const holder = el("div"), cells = DATA.boards.reduce((s, b) => s + b.cells, 0), when = DATA.boards.flatMap((b) => b.when || []).sort();
  const draw = (name) => {
    const tasks = new Map();
    settings.get(name).forEach(([i, b]) => { if (!tasks.has(b.task)) tasks.set(b.task, []); tasks.get(b.task).push([i, b]); });
    clear(holder, el("div", { class: "grid" }, [...tasks].map(([task, boards]) => matrix(task, boards))), summaryCards(name));
  };
  const scale = el("span", { class: "scale" }, "best ", [0, 0.2, 0.4, 0.6, 0.8, 1].map((t) => el("i", { style: { background: `rgb(${shade(t)})` } })), " last");
  draw(names[0]);
  return el("div", {}, el("h1", {}, "Leaderboards"), el("p", { class: "lead" }, `${cells.toLocaleString("en-US")} cells of ${DATA.methods.length} methods in ${DATA.boards.length} tables${when.length ? `, run ${when[0].slice(0, 10)} to ${when[when.length - 1].slice(0, 10)}` : ""}. A table never mixes protocols, fidelities, hardware or data.`),
    el("div", { class: "tools" }, select("Fidelity and hardware", names.map((n) => [n, n]), names[0], draw), scale), holder, DATA.comparisons.map(comparisonCard), gallery());
}
function gallery() { // one picture of each table that has any, to be found by looking
  const pick = DATA.boards.map((b, i) => { const best = b.rows.map((r) => r[M]); const run = best.map((m) => DATA.runs.find((r) => r.board === i && r.method === m && r.exhibits.some((e) => e.kind === "views" || e.kind === "strip" || e.kind === "picture"))).find(Boolean); return run && [i, b, run]; }).filter(Boolean).slice(0, 12);
  if (!pick.length) return null;
  return card("Pictures", el("div", { class: "panels" }, pick.map(([i, b, run]) => { const e = run.exhibits.find((x) => x.kind === "views") || run.exhibits.find((x) => x.kind === "strip") || run.exhibits.find((x) => x.kind === "picture"); const src = e.items ? e.items[0].prediction : e.src;
    return el("figure", {}, el("a", { href: `#/table/${i}` }, el("img", { src: safe(src), alt: `${b.task} on ${boardTitle(b)}`, class: tiny(e.width || 999), loading: "lazy", style: { "max-height": "15rem", "object-fit": "cover", "object-position": "left top" } })), el("figcaption", {}, `${b.task.replace(/_/g, " ")} on ${boardTitle(b)}: ${method(run.method)}`)); })));
}
function summaryCards(name) {
  return DATA.summaries.filter((s) => `${s.fidelity}, ${s.hardware}` === name).map((s) => {
    const order = s.methods.map((m, i) => i).sort((a, b) => s.mean_rank[a].value - s.mean_rank[b].value), top = order.slice(0, 40);
    const cell = (e) => el("td", {}, number(e.value, 3), " ", el("span", { class: "pm" }, `[${number(e.low, 3)}, ${number(e.high, 3)}]`));
    return card(`${s.task.replace(/_/g, " ")}: across ${s.datasets.length} datasets`, el("p", { class: "note" }, `${s.datasets.slice(0, 8).join(", ")}${s.datasets.length > 8 ? ", …" : ""}. Scores: 0 is the best trivial method, 1 the best of all; 95 % intervals from ${s.replicates} bootstraps over tables and seeds.`),
      el("div", { class: "grid" }, scroll(`Aggregates of ${s.task} on ${s.datasets.join(", ")}`, el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "method"), el("th", { scope: "col" }, "mean rank"), el("th", { scope: "col" }, "interquartile mean"))), el("tbody", {}, top.map((i) => el("tr", {}, el("th", { scope: "row" }, s.methods[i]), cell(s.mean_rank[i]), cell(s.iqm[i])))))),
        el("figure", {}, lines(top.slice(0, 12).map((i, k) => ({ name: s.methods[i], x: s.factors, y: s.profile[i], index: k, step: true })), { x: { label: "within this factor of the best", log: true }, y: { label: "share of tables", from: 0 }, height: 300 }, "Performance profiles"), el("figcaption", {}, "Performance profile: the share of tables that a method solves within a factor of the best (errors; reciprocals of what is better large; dB as squared errors).")),
        s.time_profile.some((p) => p.some((v) => v > 0)) && el("figure", {}, lines(top.slice(0, 12).map((i, k) => ({ name: s.methods[i], x: s.factors, y: s.time_profile[i], index: k, step: true })), { x: { label: "within this factor of the fastest", log: true }, y: { label: "share of tables", from: 0 }, height: 300 }, "Profiles of training time to quality"), el("figcaption", {}, "The same for training seconds until the target quality is known to be reached."))));
  });
}

// ------------------------------------------------------------------------------------------------------------ one table
function boardTable(board, index) {
  const p = primary(board), shownCosts = DATA.costs.map((c, i) => [c, i]).filter(([, i]) => board.rows.some((r) => r[COSTS][i]));
  const paper = board.rows.some((r) => r[GAP_PAPER] !== null), trivial = board.rows.some((r) => r[GAP_TRIVIAL] !== null);
  const columns = [
    { key: "rank", title: "rank", get: (r) => r[RANK], up: true, text: (r) => (r[RANK] === null ? "–" : String(r[RANK])) },
    { key: "method", title: "method", get: (r) => method(r[M]), up: true, head: true },
    ...board.metrics.map((m, i) => ({ key: m.name, title: metricTitle(m), get: (r) => (r[METRICS][i] ? r[METRICS][i][0] : null), up: m.direction === "down", value: (r) => r[METRICS][i], metric: m.name })),
    { key: "n", title: "seeds", get: (r) => r[SEEDS], text: (r) => String(r[SEEDS]) },
    trivial && { key: "trivial", title: "vs trivial", get: (r) => r[GAP_TRIVIAL], text: (r) => signed(r[GAP_TRIVIAL]) },
    paper && { key: "paper", title: "vs paper", get: (r) => r[GAP_PAPER], text: (r) => signed(r[GAP_PAPER]), source: true },
    ...shownCosts.map(([c, i]) => ({ key: c, title: `${costTitle(c, board)} ${ARROW[board.better[c]]}`, get: (r) => (r[COSTS][i] ? r[COSTS][i][0] : null), up: board.better[c] === "down", value: (r) => r[COSTS][i] })),
  ].filter(Boolean);
  let by = columns[0], up = true, wanted = "", trivials = true, shown = 100;
  const body = el("tbody"), heads = [], status = el("span", { class: "note", role: "status" }), more = el("button", { type: "button", onclick: () => { shown += 300; draw(); } });
  const marks = new Map(columns.filter((c) => c.value).map((c) => { const v = [...new Set(board.rows.map(c.get).filter((x) => x !== null).map((x) => +x.toPrecision(4)))].sort((a, b) => (c.up ? a - b : b - a)); return [c, v.length > 1 ? v.slice(0, 2) : []]; }));
  const draw = () => {
    const rows = board.rows.filter((r) => method(r[M]).toLowerCase().includes(wanted) && (trivials || !r[TRIVIAL]));
    rows.sort((a, b) => { const x = by.get(a), y = by.get(b); if (x === null || y === null) return (x === null) - (y === null); return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1); });
    clear(body, rows.slice(0, shown).map((r) => el("tr", { class: r[TRIVIAL] ? "trivial" : null }, columns.map((c) => {
      if (c.head) { const run = DATA.runs.find((x) => x.board === index && x.method === r[M]); return el("th", { scope: "row" }, run ? el("a", { href: `#/run/${encodeURIComponent(run.key)}` }, method(r[M])) : method(r[M]), r[TRIVIAL] ? el("span", { class: "tag" }, "trivial") : null, Object.entries(r[FAILED] || {}).map(([s, n]) => el("span", { class: "tag" }, `${n} ${s}`))); }
      if (!c.value) return el("td", { title: c.source && r[SOURCE] ? r[SOURCE] : null }, c.text(r));
      const v = c.value(r), place = v ? (marks.get(c) || []).indexOf(+v[0].toPrecision(4)) : -1;
      if (!v) return el("td", { title: (r[ABSENT] || {})[c.metric] || null }, (r[ABSENT] || {})[c.metric] ? "n/a" : "–");
      const [mean, pm] = v[2].split(" ± ");
      return el("td", { class: ["best", "second"][place] || null }, mean, pm && el("span", { class: "pm" }, ` ± ${pm}`));
    }))));
    heads.forEach(([th, c]) => (c === by ? th.setAttribute("aria-sort", up ? "ascending" : "descending") : th.removeAttribute("aria-sort")));
    status.textContent = `${rows.length} of ${board.rows.length} methods`; more.textContent = "Show more"; more.hidden = rows.length <= shown;
  };
  const head = el("tr", {}, columns.map((c) => { const th = el("th", { scope: "col", class: c.head ? "name" : null }, el("button", { type: "button", onclick: () => { up = c === by ? !up : c.up ?? false; by = c; draw(); } }, c.title)); heads.push([th, c]); return th; }));
  draw();
  const absent = new Map();
  board.rows.forEach((r) => Object.entries(r[ABSENT] || {}).forEach(([m, why]) => { const k = `${m}: ${why}`; absent.set(k, [...(absent.get(k) || []), method(r[M])]); }));
  return card("Table", el("div", { class: "tools" }, el("label", {}, "Filter ", el("input", { type: "search", placeholder: "method", oninput: (e) => { wanted = e.target.value.toLowerCase(); draw(); } })), el("label", {}, el("input", { type: "checkbox", checked: true, onchange: (e) => { trivials = e.target.checked; draw(); } }), " trivial methods"), status),
    scroll(`Leaderboard of ${board.task} on ${board.dataset}`, el("table", { class: "board" }, el("caption", { class: "hidden" }, `${board.task} on ${board.dataset}, sortable by its columns`), el("thead", {}, head), body)), more,
    el("p", { class: "note" }, "Mean ± half-width of the 95 % t-interval over seeds. A rank is shared where a paired t-test over seeds does not separate two methods. Best in bold, second underlined."),
    absent.size ? el("details", {}, el("summary", {}, "Values that are absent"), el("ul", {}, [...absent].map(([k, who]) => el("li", { class: "small" }, `${k} (${who.join(", ")})`)))) : null);
}
function paretoCard(board) {
  const p = primary(board), m = board.metrics[p], costs = DATA.costs.map((c, i) => [c, i]).filter(([, i]) => board.rows.some((r) => r[COSTS][i] && r[METRICS][p]));
  if (!costs.length) return null;
  const holder = el("div"), indices = new Map(board.rows.map((r, i) => [r[M], i]));
  const draw = (name) => {
    const i = DATA.costs.indexOf(name), front = new Set(board.pareto[name] || []);
    const points = board.rows.filter((r) => r[METRICS][p] && r[COSTS][i]).map((r) => ({ name: method(r[M]), x: r[COSTS][i][0], y: r[METRICS][p][0], ex: r[COSTS][i][1], ey: r[METRICS][p][1], xtext: r[COSTS][i][2], ytext: r[METRICS][p][2], front: front.has(r[M]), index: indices.get(r[M]) }));
    clear(holder, el("figure", {}, scatter(points, { x: { label: costTitle(name, board), log: true, better: board.better[name] }, y: { label: `${m.name}${m.unit ? ` (${m.unit})` : ""}` }, height: 380 }, `${m.name} against ${costTitle(name, board)}; on the front: ${board.rows.filter((r) => front.has(r[M])).map((r) => method(r[M])).join(", ")}`),
      el("figcaption", {}, `Ringed and joined: the Pareto front, methods that no other beats in both (${m.name} ${ARROW[m.direction]}, ${costTitle(name, board)} ${ARROW[board.better[name]]}). Bars: 95 % intervals over seeds.`)));
  };
  draw(costs[0][0]);
  return card("Quality against cost", el("div", { class: "tools" }, select("Cost", costs.map(([c]) => [c, costTitle(c, board)]), costs[0][0], draw)), holder);
}
function curvesCard(board, index) {
  const runs = DATA.runs.map((r, i) => [r, i]).filter(([r]) => r.board === index);
  if (!runs.length) return null;
  const holder = el("div", {}, el("p", { class: "wait" }, "Loading…")), tools = el("div", { class: "tools" });
  details().then((all) => {
    const curves = runs.map(([r, i]) => [r, all.runs[i].curve]).filter(([, c]) => (c.step || []).length > 1);
    const names = [...new Set(curves.flatMap(([, c]) => Object.keys(c)))].filter((n) => n !== "step" && n !== "seconds");
    if (!names.length) return clear(holder, el("p", { class: "note" }, "No method here has a learning curve."));
    const indices = new Map(board.rows.map((r, i) => [r[M], i]));
    let value = names.find((n) => n === `eval/${board.primary}`) || names.find((n) => n === board.primary) || names.find((n) => n === "loss") || names[0], axis = "seconds", log = false;
    const draw = () => clear(holder, el("figure", {}, lines(curves.filter(([, c]) => c[value]).map(([r, c]) => ({ name: method(r.method), x: c[axis], y: c[value], index: indices.get(r.method) ?? 0, faint: r.seed > 0, hint: runName(r) })), { x: { label: axis === "step" ? "steps" : "seconds of training", log: false }, y: { label: value, log } }, `${value} against ${axis}`),
      el("figcaption", {}, `${value.startsWith("eval/") ? "Computed by the protocol." : "What the method reports of its training batches; of different losses only the shape can be compared."} Faint: further seeds.`)));
    tools.append(select("Value", names.map((n) => [n, n]), value, (v) => { value = v; draw(); }), select("Against", [["seconds", "seconds"], ["step", "steps"]], axis, (v) => { axis = v; draw(); }), el("label", {}, el("input", { type: "checkbox", onchange: (e) => { log = e.target.checked; draw(); } }), " logarithmic"));
    draw();
  });
  return card("Learning curves", tools, holder);
}
function timeCard(board, index) {
  if (board.target === null) return null;
  const runs = DATA.runs.filter((r) => r.board === index && r.status === "done");
  if (!runs.length) return null;
  const by = new Map(); runs.forEach((r) => by.set(r.method, [...(by.get(r.method) || []), r]));
  const rows = [...by].map(([m, list]) => { const hit = list.filter((r) => r.reached); return { m, list, hit, mean: hit.length ? hit.reduce((s, r) => s + r.reached[0], 0) / hit.length : Infinity }; }).sort((a, b) => a.mean - b.mean);
  const exact = runs.some((r) => r.reached?.[1]);
  return card("Seconds to quality", el("p", {}, `Target: ${board.primary} ${number(board.target)}, nine tenths of the way from the best trivial method to the best.`),
    scroll("Seconds to quality", el("table", {}, el("thead", {}, el("tr", {}, ["method", "seconds of training", "seeds that reach it"].map((t) => el("th", { scope: "col" }, t)))), el("tbody", {}, rows.map((r) => el("tr", {}, el("th", { scope: "row" }, method(r.m)), el("td", {}, r.hit.length ? `${r.hit.every((x) => x.reached[1]) ? "" : "≤ "}${number(r.mean)}` : "not reached"), el("td", {}, `${r.hit.length} of ${r.list.length}`)))))),
    el("p", { class: "note" }, exact ? "From evaluations during training where there are any; ≤ marks upper bounds from the end of training." : "There are no evaluations during training, so exact times are absent: ≤ is an upper bound, the whole training of a run whose final value is good enough."));
}
function itemsCard(board, index) {
  const parts = [];
  if (board.by_instance) {
    const m = board.metrics[primary(board)];
    parts.push(el("h3", {}, "By instance"), scroll("By instance", el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "method"), board.instances.map((n) => el("th", { scope: "col" }, n)))), el("tbody", {}, Object.entries(board.by_instance).map(([k, values]) => el("tr", {}, el("th", { scope: "row" }, method(k)), values.map((v, i) => { const all = Object.values(board.by_instance).map((x) => x[i]).filter((x) => x !== null), best = m.direction === "up" ? Math.max(...all) : Math.min(...all); return el("td", { class: v !== null && v === best && all.length > 1 ? "best" : null }, number(v)); })))))));
  }
  const runs = DATA.runs.filter((r) => r.board === index && r.items), indices = new Map(board.rows.map((r, i) => [r[M], i]));
  if (runs.length) parts.push(el("figure", {}, lines(runs.map((r) => ({ name: method(r.method), x: r.items.map((_, i) => (100 * i) / (r.items.length - 1)), y: r.items, index: indices.get(r.method) ?? 0, faint: r.seed > 0, hint: runName(r) })), { x: { label: "% of the test items, from the lowest value to the highest" }, y: { label: board.primary } }, `${board.primary} over the test items`), el("figcaption", {}, "How the value spreads over single test items: a flat line treats all alike, a drop on one side is a group of items that fail.")));
  return parts.length ? card("Item by item", ...parts) : null;
}
const remembered = { run: {}, title: {} };
function picturesCard(board, index) {
  const runs = DATA.runs.filter((r) => r.board === index && r.exhibits.length);
  if (!runs.length) return null;
  const order = new Map(board.rows.map((r, i) => [r[M], i]));
  runs.sort((a, b) => order.get(a.method) - order.get(b.method) || a.seed - b.seed);
  const trivial = new Set(board.rows.filter((r) => r[TRIVIAL]).map((r) => r[M])), telling = (r) => !trivial.has(r.method) && r.exhibits.some((e) => e.kind !== "picture");
  const stage = el("div"), start = runs.find((r) => r.key === remembered.run[index]) || runs.find(telling) || runs[0];
  const draw = (key) => { remembered.run[index] = key; const run = runs.find((r) => r.key === key); clear(stage, exhibitTabs(run, remembered.title[index], (t) => { remembered.title[index] = t; })); };
  draw(start.key);
  return card("Look at it", el("div", { class: "tools" }, select("Run", runs.map((r) => [r.key, `${runName(r)}${r.value !== null ? ` (${number(r.value)})` : ""}`]), start.key, draw), el("a", { href: `#/table/${index}/all` }, "all methods side by side")), stage);
}
function sideBySide(index) { // the same picture of every method
  const board = DATA.boards[index], runs = DATA.runs.filter((r) => r.board === index && r.exhibits.length);
  const titles = [...new Set(runs.flatMap((r) => r.exhibits.map((e) => e.title)))], holder = el("div");
  const draw = (title) => clear(holder, el("div", { class: "grid" }, runs.filter((r) => r.exhibits.some((e) => e.title === title)).slice(0, 24).map((r) => { const e = r.exhibits.find((x) => x.title === title); return el("section", { class: "card" }, el("h2", {}, runName(r)), SHOW[e.kind](e, r)); })));
  if (titles.length) draw(titles[0]);
  return el("div", {}, el("h1", {}, `${board.task.replace(/_/g, " ")} on ${boardTitle(board)}: side by side`), el("p", {}, el("a", { href: `#/table/${index}` }, "Back to the table")), titles.length ? el("div", { class: "tools" }, select("Picture", titles.map((t) => [t, t]), titles[0], draw)) : el("p", {}, "No run here kept pictures."), holder);
}
function boardPage(index) {
  const b = DATA.boards[index];
  if (!b) return missing();
  const siblings = DATA.boards.map((x, i) => [x, i]).filter(([x, i]) => i !== index && x.task === b.task && x.dataset === b.dataset);
  return el("div", {}, el("h1", {}, `${b.task.replace(/_/g, " ")} on ${boardTitle(b)}`),
    el("ul", { class: "chips" }, [`fidelity ${b.fidelity}`, `protocol ${b.protocol}`, b.hardware, b.fingerprint && `data ${b.fingerprint}`, b.instances.length > 1 && `${b.instances.length} instances`, `${b.cells} cells`, b.when && `${b.when[0].slice(0, 16).replace("T", " ")} to ${b.when[1].slice(0, 16).replace("T", " ")} UTC`].filter(Boolean).map((t) => el("li", {}, t))),
    b.split && el("p", { class: "split" }, `This table is one of several: ${b.split}. `, siblings.map(([x, i], k) => [k ? ", " : "The others: ", el("a", { href: `#/table/${i}` }, `${x.fidelity}, ${x.hardware}${setting(x) === setting(b) ? `, data ${x.fingerprint}` : ""}`)])),
    boardTable(b, index), picturesCard(b, index), el("div", { class: "grid" }, paretoCard(b), curvesCard(b, index), timeCard(b, index), itemsCard(b, index), coursesCard(b, index)), runList(b, index));
}
function runList(board, index) {
  const runs = DATA.runs.filter((r) => r.board === index);
  if (!runs.length) return null;
  return card("Runs", el("details", {}, el("summary", {}, `${runs.length} runs with their configuration, environment, curves and log`), el("ul", {}, runs.map((r) => el("li", {}, el("a", { href: `#/run/${encodeURIComponent(r.key)}` }, `${method(r.method)}${board.instances.length > 1 ? `, ${r.instance}` : ""}, seed ${r.seed}`), ` ${r.status === "done" ? number(r.value) : r.status}`)))));
}

// --------------------------------------------------------------------------------------------------------------- one run
function runPage(key) {
  const i = DATA.runs.findIndex((r) => r.key === key);
  if (i < 0) return missing();
  const run = DATA.runs[i], board = DATA.boards[run.board], holder = el("div", {}, el("p", { class: "wait" }, "Loading…"));
  details().then((all) => {
    const d = all.runs[i], pool = all.pool, environment = pool[d.environment] || {}, code = pool[d.code] || {}, card1 = pool[d.method_card] || {}, card2 = pool[d.dataset_card] || {};
    const text = (v) => (typeof v === "object" && v !== null ? JSON.stringify(v) : String(v));
    const link = DATA.mlflow && d.mlflow_run && d.experiment ? el("a", { href: `${DATA.mlflow}/#/experiments/${encodeURIComponent(d.experiment)}/runs/${encodeURIComponent(d.mlflow_run)}`, rel: "noreferrer" }, "in MLflow") : null;
    const accounts = Object.entries(d.accounts || {}).filter(([, s]) => s > 0), wall = accounts.reduce((s, [, v]) => s + v, 0) || 1;
    const series = Object.keys(d.curve || {}).filter((n) => n !== "step" && n !== "seconds");
    const curves = series.length && d.curve.step.length > 1 ? el("div", { class: "panels" }, series.slice(0, 12).map((n) => el("figure", {}, lines([{ name: n, x: d.curve.seconds, y: d.curve[n], index: 0 }], { x: { label: "seconds of training" }, y: { label: n }, height: 260 }, n)))) : el("p", { class: "note" }, "No learning curve.");
    const packages = environment.packages ? Object.entries(environment.packages) : [];
    clear(holder,
      d.status !== "done" && el("p", { class: "split" }, `${d.status}: ${d.reason}`),
      el("div", { class: "grid" },
        card("Result", facts([...Object.entries(d.metrics || {}).map(([k, v]) => [k, number(v)]), ...Object.entries(d.absent || {}).map(([k, v]) => [k, `absent: ${v}`]), ["throughput", d.throughput && `${number(d.throughput)} ${d.throughput_unit}/s`], ...(d.latency || []).map((l) => [`latency, batch ${l.batch_size}`, `p50 ${number(l.p50_ms)} ms, p95 ${number(l.p95_ms)} ms`]), ["parameters", (d.num_parameters || 0).toLocaleString("en-US")], ["steps", (d.steps || 0).toLocaleString("en-US")], ["samples", (d.samples || 0).toLocaleString("en-US")], ["peak memory", d.peak_memory_mb && `${number(d.peak_memory_mb)} MB of the process`], ["peak device memory", d.peak_device_memory_mb && `${number(d.peak_device_memory_mb)} MB`], ["FLOPs of a training step", d.train_step_flops && number(d.train_step_flops)], ["FLOPs of an inference", d.inference_flops && number(d.inference_flops)], ["energy", d.energy_joules && `${number(d.energy_joules)} J`], ...Object.entries(d.notes || {}).map(([k, v]) => [k.replace(/_/g, " "), text(v)])])),
        el("div", {}, card("Repeat it", el("pre", { tabindex: 0, "aria-label": "Command" }, d.command), el("p", { class: "note" }, `code ${code.version || "?"}, commit ${String(code.commit || "unknown").slice(0, 12)}${code.dirty ? " with changes that were not committed" : ""}. ${(d.applied_presets || []).length ? `Presets: ${d.applied_presets.join("; ")}.` : ""}`), link),
          card("Where the time went", el("div", { class: "bars", role: "img", "aria-label": accounts.map(([n, s]) => `${n} ${number(s, 3)} s`).join(", ") }, accounts.map(([n, s], k) => el("span", { style: { width: `${(100 * s) / wall}%`, background: colour(k) }, title: `${n}: ${number(s, 3)} s` }))), el("ul", { class: "parts" }, accounts.map(([n, s], k) => el("li", {}, el("span", { class: "swatch", style: { background: colour(k) } }), `${n} ${number(s, 3)} s`))), el("p", { class: "note" }, `${number(d.wall_seconds)} s of wall time, ${number(d.cpu_seconds)} s of CPU time; started ${d.started}.`)))),
      card("Pictures", exhibitTabs(run)),
      card("Curves", curves),
      el("div", { class: "grid" }, card("Method and data", facts([["method", card1.title], ["paper", card1.paper], ["licence", card1.licence], ["about", card1.card], ["dataset", card2.title], ["", card2.description], ["data licence", card2.licence], ["fingerprint", d.data_fingerprint], ["precision", d.precision], ["budget", Object.entries(d.budget || {}).filter(([, v]) => v !== null).map(([k, v]) => `${v} ${k}`).join(", ")]]), el("h3", {}, "Parameters"), facts(Object.entries(d.parameters || {}).map(([k, v]) => [k, text(v)]))),
        card("Environment", facts([["hardware class", d.hardware], ...Object.entries(environment).filter(([k]) => k !== "packages").map(([k, v]) => [k.replace(/_/g, " "), text(v)])]), packages.length ? el("details", {}, el("summary", {}, `${packages.length} packages`), facts(packages)) : null)),
      card("End of the log", d.log ? el("pre", { tabindex: 0, "aria-label": "Log" }, d.log) : el("p", { class: "note" }, "The cell printed nothing.")));
  });
  return el("div", {}, el("h1", {}, `${method(run.method)} on ${boardTitle(board)}, seed ${run.seed}`), el("ul", { class: "chips" }, [board.task, `fidelity ${board.fidelity}`, run.instance !== "all" && run.instance, run.status, `cell ${run.key}`].filter(Boolean).map((t) => el("li", {}, t))), el("p", {}, el("a", { href: `#/table/${run.board}` }, "Back to the table")), holder);
}
const missing = () => el("div", {}, el("h1", {}, "There is no such page"), el("p", {}, el("a", { href: "#/" }, "Overview")));

// ---------------------------------------------------------------------------------------------------------------- routing
function route() {
  const [, page, id, extra] = location.hash.split("/");
  tip?.remove();
  const content = page === "table" ? (extra === "all" && DATA.boards[+id] ? sideBySide(+id) : boardPage(+id)) : page === "run" ? runPage(decodeURIComponent(id || "")) : overview();
  clear(main, content);
  document.title = `${main.querySelector("h1").textContent} · adlbench`;
  const jump = document.getElementById("jump");
  jump.value = page === "table" ? `#/table/${+id}` : "#/";
  if (route.moved) { scrollTo(0, 0); main.focus({ preventScroll: true }); }
  route.moved = true;
}
async function start() {
  const theme = document.getElementById("theme"), root = document.documentElement;
  root.classList.toggle("dark", matchMedia("(prefers-color-scheme: dark)").matches);
  theme.addEventListener("click", () => root.classList.toggle("dark"));
  DATA = await read("data");
  const groups = new Map();
  DATA.boards.forEach((b, i) => { if (!groups.has(b.task)) groups.set(b.task, []); groups.get(b.task).push([i, b]); });
  const jump = document.getElementById("jump");
  jump.append(el("option", { value: "#/" }, "Overview"), ...[...groups].map(([task, boards]) => el("optgroup", { label: task }, boards.map(([i, b]) => el("option", { value: `#/table/${i}` }, `${boardTitle(b)}, ${b.fidelity}${boards.filter(([, x]) => x.dataset === b.dataset && x.fidelity === b.fidelity).length > 1 ? `, ${b.hardware}` : ""}${boards.filter(([, x]) => x.dataset === b.dataset && x.fidelity === b.fidelity && x.hardware === b.hardware).length > 1 ? `, data ${b.fingerprint}` : ""}`)))));
  jump.addEventListener("change", () => { location.hash = jump.value.slice(1); });
  document.getElementById("foot").textContent = `Written by adlbench ${DATA.version} on ${DATA.generated.replace("T", " ").slice(0, 16)} UTC. This page needs no network.`;
  addEventListener("hashchange", route);
  // Skip links and other anchors of the page itself are no routes.
  document.querySelector(".skip").addEventListener("click", (e) => { e.preventDefault(); main.focus(); });
  route();
  document.body.dataset.ready = "yes";
}
start();
