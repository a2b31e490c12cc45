// The report on many runs: a table that sorts, curves of arms, and bars.

const COLOURS = 10;
const SHOWN = 10; // arms whose curves are drawn at first
const BARS = 20; // arms that have a bar at first
const runs = data.sections.flatMap((section) => section.arms.flatMap((arm, place) =>
  arm.runs.map((run) => ({...run, section, arm: arm.name, colour: colour(place)}))));

function colour(arm) { return "a" + arm % COLOURS; }
function plural(count, word) { return `${rounded(count)} ${word}${count === 1 ? "" : "s"}`; }
function swatch(arm) { return make("span", {class: "swatch " + colour(arm)}); }
function words(run) { return run.marks.map((mark) => mark.word).join(", "); }
function speed(value) { return rounded(value >= 100 ? Math.round(value) : value); }
function mean(values) { return values.reduce((sum, value) => sum + value, 0) / values.length; }

// --- The table ---

const several = new Set(runs.map((run) => run.section.experiment)).size > 1;
const COLUMNS = [
  {head: "run", value: (run) => run.name, cell: nameCell},
  {head: "state", value: words, cell: stateCell},
  ...several ? [{head: "experiment", value: (run) => run.section.experiment, kind: "word"}] : [],
  {head: "arm", value: (run) => run.arm, kind: "arm"},
  {head: "seed", value: (run) => run.seed, kind: "number"},
  {head: "step", value: (run) => run.step, kind: "number", title: "of its last line"},
  {head: "best", value: (run) => run.best, kind: "number", title: "validation headline", cell: bestCell},
  {head: "train loss", value: (run) => run.loss, kind: "number", title: "of its last training line"},
  {head: "targets/s", value: (run) => run.speed, kind: "number", title: "median of its training lines", cell: (run) => speed(run.speed)},
  {head: "wall min.", value: (run) => run.minutes, kind: "number", title: "minutes from its start to its last line"},
  {head: "train min.", value: (run) => run.training, kind: "number", title: "minutes from its first step to its last, evaluations included, compilation not"},
  {head: "parameters", value: (run) => run.parameters, kind: "number"},
];
const view = {by: null, down: false, filter: ""};

function nameCell(run) {
  return make("button", {class: "name", "aria-expanded": String(Boolean(run.open)),
    title: "all that is known of it", onclick: () => { run.open = !run.open; fillRows(); }}, run.name);
}

function stateCell(run) {
  return make("div", {}, ...run.marks.map((mark) => make("div", {title: mark.reason},
    make("span", {class: "mark " + mark.kind}, mark.word),
    mark.reason ? make("div", {class: "reason"}, mark.reason) : null)));
}

function bestCell(run) {
  if (run.best === null) return "";
  return make("span", {title: `${run.section.headline} at step ${rounded(run.at)}`}, rounded(run.best));
}

// Missing values come last, whichever way the others go.
function compared(a, b) {
  const missing = (value) => value === null || value === undefined;
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  const numbers = typeof a === "number" && typeof b === "number";
  const order = numbers ? a - b : String(a).localeCompare(String(b), "en", {numeric: true});
  return view.down ? -order : order;
}

function matches(run) {
  const said = [run.name, run.section.experiment, run.arm, ...run.marks.flatMap((m) => [m.word, m.reason])];
  return said.join(" ").toLowerCase().includes(view.filter.toLowerCase());
}

function sortBy(column) {
  view.down = view.by === column && !view.down;
  view.by = column;
  heads.forEach((head, place) => head.setAttribute("aria-sort",
    COLUMNS[place] !== column ? "none" : view.down ? "descending" : "ascending"));
  fillRows();
}

function fillRows() {
  const found = runs.filter(matches);
  if (view.by) found.sort((a, b) => compared(view.by.value(a), view.by.value(b)));
  fill(rows, ...found.flatMap((run) => [row(run), run.open ? more(run) : null]));
  fill(count, found.length === runs.length ? "" : `${found.length} of ${plural(runs.length, "run")}`);
}

function row(run) {
  return make("tr", {}, ...COLUMNS.map((column) => {
    const value = column.value(run);
    const text = typeof value === "number" ? rounded(value) : value;
    return make("td", {class: column.kind}, column.cell ? column.cell(run) : text);
  }));
}

function more(run) {
  return make("tr", {class: "more"}, make("td", {colspan: COLUMNS.length},
    ...run.marks.map((mark) => make("div", {class: "reason"},
      make("span", {class: "mark " + mark.kind}, mark.word), mark.reason ? " " + mark.reason : "")),
    run.numbers.length ? make("ul", {}, ...run.numbers.map((line) => make("li", {}, line))) : null,
    run.traceback ? make("pre", {class: "mono"}, run.traceback) : null));
}

const rows = make("tbody");
const count = make("span", {class: "faint", role: "status"});
const heads = COLUMNS.map((column) => make("th",
  {scope: "col", class: column.kind, "aria-sort": "none", title: column.title},
  make("button", {class: "sort", onclick: () => sortBy(column)}, column.head)));

// --- Curves ---

const axes = {x: "steps", quantity: "headline", scale: "linear", splits: new Set(data.sections.flatMap((s) => s.splits))};
const WIDTH = 1000, HEIGHT = 340, LEFT = 64, RIGHT = 14, TOP = 12, BOTTOM = 40;

// Round numbers between two others: at most `most` of them.
function ticks(low, high, most) {
  const rough = (high - low) / most;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((times) => unit * times >= rough);
  const found = [];
  for (let place = Math.ceil(low / step); place * step <= high && found.length <= most; place++) found.push(place * step + 0);  // and no -0
  return found;
}

function logTicks(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const every = Math.max(1, Math.ceil((last - first) / 8));
  const found = [];
  for (let power = first; power <= last; power += every) {
    for (const times of last - first > 2 ? [1] : [1, 2, 5]) found.push(times * 10 ** power);
  }
  return found.filter((tick) => tick >= low && tick <= high);
}

// Where values stand between two ends of a picture.
function scaled(values, logarithmic, from, to) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value === null || (logarithmic && value <= 0)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return null;
  const flat = low === high;
  const by = logarithmic ? Math.log10 : (value) => value;
  const margin = flat ? (logarithmic ? 0.3 : Math.abs(low) * 0.1 || 1) : (by(high) - by(low)) * 0.04;
  const [start, end] = [by(low) - margin, by(high) + margin];
  const place = (value) => value === null || (logarithmic && value <= 0) ? null
    : from + (by(value) - start) / (end - start) * (to - from);
  const marks = logarithmic ? logTicks(10 ** start, 10 ** end) : ticks(start, end, 6);
  return {place, marks, value: (at) => start + (at - from) / (to - from) * (end - start)};
}

// Stretches of points in which all have a place, as [[x, y], ...].
function stretches(points) {
  const found = [[]];
  for (const point of points) {
    if (point.includes(null)) { if (found[found.length - 1].length) found.push([]); }
    else found[found.length - 1].push(point);
  }
  return found.filter((stretch) => stretch.length);
}

function path(points) {
  return stretches(points).map((stretch) =>
    "M" + stretch.map((point) => point.map((at) => at.toFixed(1)).join(" ")).join("L")).join("");
}

function curvesOf(section, state) {
  return section.curves[axes.quantity].filter((curve) =>
    axes.splits.has(curve.split) && !state.hidden.has(curve.arm));
}

function drawCurve(curve, x, y) {
  const across = curve[axes.x].map(x.place);
  const up = (values) => values.map((value, i) => [across[i], y.place(value)]);
  const all = curve.there === null;
  const kind = curve.split === "train" ? "line train" : "line";
  const group = make("g", {class: colour(curve.arm), "data-arm": curve.arm});
  if (curve.low) {
    for (const stretch of stretches(curve.low.map((low, i) => [across[i], y.place(low), y.place(curve.high[i])]))) {
      const there = stretch.map(([at, low]) => [at, low]), back = stretch.map(([at, , high]) => [at, high]).reverse();
      group.append(make("path", {class: "band", d: path([...there, ...back]) + "Z"}));
    }
  }
  const lacks = (i) => !all && curve.there[i] < curve.runs;  // false beyond the ends
  const where = (test) => path(up(curve.mean.map((value, i) => test(i) ? value : null)));
  group.append(make("path", {class: kind, d: where((i) => !lacks(i))}));
  if (!all) group.append(make("path", {class: kind + " some", d: where((i) => lacks(i - 1) || lacks(i) || lacks(i + 1))}));
  if (curve.split !== "train" && curve.mean.length <= 60) {
    for (const [at, height] of up(curve.mean)) {
      if (at !== null && height !== null) group.append(make("circle", {class: "dot", cx: at.toFixed(1), cy: height.toFixed(1), r: 2.5}));
    }
  }
  return group;
}

function draw(section, state) {
  const curves = curvesOf(section, state);
  const heights = curves.flatMap((curve) => [...curve.mean, ...(curve.low || []), ...(curve.high || [])]);
  const x = scaled(curves.flatMap((curve) => curve[axes.x]), false, LEFT, WIDTH - RIGHT);
  const y = scaled(heights, axes.scale === "logarithmic", HEIGHT - BOTTOM, TOP);
  const quantity = axes.quantity === "loss" ? "loss" : section.headline;
  const svg = make("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${quantity} by ${axes.x}`});
  state.tip.hidden = true;
  fill(state.plot, svg, state.tip);
  if (!x || !y) {
    svg.append(make("text", {class: "tick", x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle"}, "nothing to draw"));
    return;
  }
  for (const mark of y.marks) {
    const at = y.place(mark);
    svg.append(make("line", {class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at}),
      make("text", {class: "tick", x: LEFT - 6, y: at + 4, "text-anchor": "end"}, rounded(mark, 6)));
  }
  for (const mark of x.marks) {
    svg.append(make("text", {class: "tick", x: x.place(mark), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle"}, rounded(mark, 6)));
  }
  svg.append(
    make("text", {x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle"}, axes.x === "steps" ? "step" : "wall time, minutes"),
    make("text", {x: -(HEIGHT - BOTTOM + TOP) / 2, y: 12, transform: "rotate(-90)", "text-anchor": "middle"}, shortened(quantity, 50)),
    ...curves.map((curve) => drawCurve(curve, x, y)));
  const cross = make("line", {class: "cross", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden"});
  svg.append(cross);
  svg.onpointermove = (event) => point(event, svg, section, state, curves, x, y, cross);
  svg.onpointerleave = () => { state.tip.hidden = true; cross.setAttribute("visibility", "hidden"); };
}

// The place of the value next to another, among rising ones.
function nearest(values, wanted) {
  let low = 0, high = values.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low > 0 && wanted - values[low - 1] < values[low] - wanted ? low - 1 : low;
}

function point(event, svg, section, state, curves, x, y, cross) {
  const frame = svg.getBoundingClientRect();
  const [atX, atY] = [(event.clientX - frame.left) / frame.width * WIDTH, (event.clientY - frame.top) / frame.height * HEIGHT];
  const found = curves.map((curve) => {
    const i = nearest(curve[axes.x], x.value(atX));
    const height = y.place(curve.mean[i]);
    const across = x.place(curve[axes.x][i]);
    return {curve, i, across, away: height === null ? Infinity : Math.abs(height - atY) + Math.abs(across - atX)};
  }).filter((each) => each.away < Infinity).sort((a, b) => a.away - b.away).slice(0, 8);
  if (!found.length) return;
  const first = found[0];
  cross.setAttribute("x1", first.across);
  cross.setAttribute("x2", first.across);
  cross.setAttribute("visibility", "visible");
  fill(state.tip, ...found.map(({curve, i}) => make("div", {}, swatch(curve.arm),
    make("span", {class: "label"}, section.arms[curve.arm].name), told(curve, i))));
  state.tip.hidden = false;
  const left = first.across / WIDTH * frame.width;
  state.tip.style.left = left < frame.width / 2 ? `${left + 14}px` : "auto";
  state.tip.style.right = left < frame.width / 2 ? "auto" : `${frame.width - left + 14}px`;
}

function told(curve, i) {
  const there = curve.there ? curve.there[i] : curve.runs;
  const of = there < curve.runs ? `${there} of ` : "";
  const spread = curve.low && there > 1 ? ` (${rounded(curve.low[i])} to ${rounded(curve.high[i])}, ${of}${curve.runs} runs)`
    : of ? ` (${of}${curve.runs} runs)` : "";
  const at = axes.x === "steps" ? "" : `, ${rounded(curve.minutes[i])} min`;
  return make("span", {}, `${curve.split} ${rounded(curve.mean[i])}${spread} at step ${rounded(curve.steps[i])}${at}`);
}

function shortened(text, most) { return text.length <= most ? text : text.slice(0, most - 1) + "\u2026"; }

function curvePanel(section) {
  const state = {
    hidden: new Set([...section.arms.keys()].filter((arm) => arm >= SHOWN)),
    plot: make("figure", {class: "plot"}),
    tip: make("div", {class: "tip", hidden: ""}),
  };
  const buttons = section.arms.map((arm, place) => make("button", {
    "aria-pressed": String(!state.hidden.has(place)),
    onclick: () => { state.hidden.has(place) ? state.hidden.delete(place) : state.hidden.add(place); redraw(); },
    onpointerenter: () => highlight(place),
    onpointerleave: () => highlight(null),
  }, swatch(place), make("span", {class: "label"}, arm.name), make("span", {class: "faint"}, plural(arm.runs.length, "run"))));
  const toggle = (text, hidden) => make("button", {onclick: () => { state.hidden = new Set(hidden); redraw(); }}, text);
  const few = section.arms.length > SHOWN;

  function highlight(arm) {
    const shown = arm !== null && !state.hidden.has(arm);
    for (const group of state.plot.querySelectorAll("g[data-arm]")) {
      group.classList.toggle("dimmed", shown && group.dataset.arm !== String(arm));
    }
  }
  function redraw() {
    buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(!state.hidden.has(place))));
    draw(section, state);
  }
  redraws.push(redraw);
  redraw();
  return [
    buttons.length > 2 ? make("div", {class: "legend"}, toggle("all arms", []),
      few ? toggle(`best ${SHOWN}`, [...section.arms.keys()].filter((arm) => arm >= SHOWN)) : null,
      toggle("none", section.arms.keys())) : null,
    make("div", {class: "legend"}, ...buttons),
    state.plot,
    section.thinned ? make("p", {class: "faint"}, data.notes.thinned) : null,
  ];
}

const redraws = [];
function setAxis(name, value) { axes[name] = value; redraws.forEach((redraw) => redraw()); }

function splitBox(split) {
  const box = make("input", {type: "checkbox", checked: "", onchange: () => {
    box.checked ? axes.splits.add(split) : axes.splits.delete(split);
    redraws.forEach((redraw) => redraw());
  }});
  return make("label", {}, box, " " + shortened(split, 40));
}

// --- Bars ---

const ROW = 36, NUMBERS = 120, ACROSS = 440;

// A bar for each arm's mean, a point for each of its runs that has a value.
function bars(section, title, value, floor, note, largestFirst) {
  const found = section.arms.map((arm, place) => {
    const there = arm.runs.filter((run) => value(run) !== null);
    return {place, name: arm.name, there, mean: there.length ? mean(there.map(value)) : null};
  });
  if (found.every((arm) => arm.mean === null)) return null;
  if (largestFirst) found.sort((a, b) => (b.mean ?? -Infinity) - (a.mean ?? -Infinity) || a.place - b.place);
  const box = make("div");
  function show(all) {
    const some = all ? found : found.slice(0, BARS);
    const top = Math.max(...some.flatMap((arm) => arm.there.map(value)));
    const across = (number) => 4 + (number - floor) / (top - floor || 1) * (ACROSS - NUMBERS);
    const svg = make("svg", {viewBox: `0 0 ${ACROSS} ${ROW * some.length + 4}`, role: "img", "aria-label": title});
    some.forEach((arm, i) => svg.append(bar(arm, ROW * i, value, across)));
    fill(box, make("h3", {}, title), make("p", {class: "faint"}, note), svg,
      some.length < found.length ? make("button", {onclick: () => show(true)}, `all ${found.length} arms`) : null);
  }
  show(false);
  return box;
}

function bar(arm, y, value, across) {
  const group = make("g", {class: colour(arm.place)}, make("title", {}, arm.name),
    make("text", {x: 4, y: y + 13}, shortened(arm.name, 68)));
  if (arm.mean === null) {
    group.append(make("text", {class: "tick", x: 4, y: y + 29}, "none"));
    return group;
  }
  const count = arm.there.length, gap = Math.min(3, 12 / count);
  const end = Math.max(...arm.there.map(value), arm.mean);
  group.append(
    make("rect", {class: "bar", x: 4, y: y + 18, width: Math.max(1, across(arm.mean) - 4).toFixed(1), height: 14}),
    ...arm.there.map((run, k) => make("circle",
      {class: "seed", r: 3, cx: across(value(run)).toFixed(1), cy: y + 25 + (k - (count - 1) / 2) * gap},
      make("title", {}, `${run.name}: ${rounded(value(run), 5)}`))),
    make("text", {x: across(end) + 8, y: y + 29}, `${rounded(arm.mean)} (${plural(count, "run")})`));
  return group;
}

function barPanels(section) {
  const cut = section.floor ? `; the axis begins at ${rounded(section.floor)}` : "";
  return make("div", {class: "bars"},
    bars(section, `best validation ${shortened(section.headline, 60)}`, (run) => run.best, section.floor,
      `${section.better}; bars are means, points are runs${cut}`, false),
    bars(section, "targets a second", (run) => run.speed, 0, "more is faster; bars are means, points are runs", true),
    bars(section, "training minutes", (run) => run.training, 0, "evaluations included, compilation not", true));
}

// --- The page ---

function states() {
  const counts = new Map();
  for (const run of runs) for (const mark of run.marks) {
    const known = counts.get(mark.word) || {count: 0, kind: mark.kind};
    counts.set(mark.word, {...known, count: known.count + 1});
  }
  return [...counts].map(([word, {count, kind}]) => make("span", {class: "mark " + kind}, `${count} ${word}`));
}

const filter = make("input", {type: "search", placeholder: "filter by name, arm, state\u2026", "aria-label": "filter runs",
  oninput: () => { view.filter = filter.value; fillRows(); }});
fill(page,
  make("h1", {}, data.title),
  make("p", {class: "faint"}, `${plural(runs.length, "run")}, as they were at ${data.written}`),
  make("div", {class: "tools"}, filter, ...states(), count),
  make("div", {class: "scroll"}, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), rows)),
  make("h2", {}, "Learning curves and arms"),
  make("div", {class: "tools"},
    chooser("over", [["steps", "steps"], ["minutes", "minutes"]], axes.x, (value) => setAxis("x", value)),
    chooser("quantity", [["headline", "the headline"], ["loss", "loss"]], axes.quantity, (value) => setAxis("quantity", value)),
    chooser("scale", [["linear", "linear"], ["logarithmic", "logarithmic"]], axes.scale, (value) => setAxis("scale", value)),
    ...[...axes.splits].map(splitBox)),
  make("p", {class: "faint"}, data.notes.band),
  ...data.sections.flatMap((section) => [
    make("h2", {}, section.experiment),
    make("p", {class: "faint"}, `compared by validation ${section.headline}, ${section.better}; ${plural(section.arms.length, "arm")}`),
    ...curvePanel(section),
    barPanels(section),
  ]));
fillRows();
