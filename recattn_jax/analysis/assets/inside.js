// The page of what was seen inside of a run. A token that is pointed at is hovered; one that was
// clicked, or reached by a key, is pinned and is shown while none is hovered.

const MEAN = -1; // of the heads
const SHADES = 0.5; // the power of colours of maps: small weights are seen too
const BEST = 6; // tokens that a sentence names
const MAP_SIDE = 500; // pixels
const CELL = 24; // at most
const NAMED_CELL = 11; // at least, of one that has a label

const state = {map: 0, head: MEAN, forward: true, trace: 0, hovered: null, pinned: null};
const strips = new Map(); // the elements of the tokens, by axis
const grids = new Map(); // decoded, by map and head

const reading = make("div", {class: "reading", "aria-live": "polite"});
const direction = make("span");
const heads = make("div", {class: "heads"});
const strip = make("div", {class: "strips"});
const figure = make("figure", {class: "map"});
const recurrence = make("div");

const quoted = (token) => make("span", {class: "mono"}, "\u201c", ...spelled(token), "\u201d");
const number = (value) => Number.isFinite(value) ? rounded(value, 3) : "not finite";
const focus = () => state.hovered ?? state.pinned;
const picked = () => data.maps[state.map];

// A token, with signs for its spaces that are not as loud as letters.
function spelled(token) {
  return token.split(/([\u2423\u21b5\u21e5]+)/).map((part, at) =>
    at % 2 ? make("span", {class: "space"}, part) : part);
}

function tokensOf(axis, count) {
  return data.labels[axis] ?? Array.from({length: count}, (_, at) => `${axis} ${at}`);
}

function gridOf(map, head) {
  const key = `${data.maps.indexOf(map)} ${head}`;
  if (!grids.has(key)) {
    const grid = head === MEAN
      ? meanOf(map.heads.map((_, each) => gridOf(map, each)))
      : decoded(map.heads[head], map.size[1], map.signed, SHADES);
    grids.set(key, grid);
  }
  return grids.get(key);
}

// Whether all that a map has is one row, which is no token's.
function isOutput(map) {
  return map.size[0] === 1 && !(map.rows in data.labels);
}

// The row or the column of the picked map that a token stands for; null where it has none.
function lineOf(token) {
  const map = picked();
  if (!map) return null;
  const grid = gridOf(map, state.head);
  if (isOutput(map)) return {grid, axis: map.columns, values: rowOf(grid, 0), only: true};
  const [isRow, isColumn] = [token.axis === map.rows, token.axis === map.columns];
  if (isRow && (state.forward || !isColumn)) {
    return {grid, axis: map.columns, values: rowOf(grid, token.index), forward: true};
  }
  if (!isColumn) return null;
  return {grid, axis: map.rows, values: columnOf(grid, token.index), forward: false};
}

function hover(token) {
  state.hovered = token;
  refresh();
}

function pin(token) {
  state.pinned = token;
  state.hovered = null;
  refresh();
}

// What changes with the token.
function refresh() {
  const token = focus();
  const line = lineOf(token);
  const most = line ? largest(line.values) : 0;
  for (const [axis, elements] of strips) {
    elements.forEach((element, index) => {
      if (line && axis === line.axis) grounded(element, colour(line.values[index], most, line.grid));
      else element.removeAttribute("style");
      const here = (other) => other !== null && other.axis === axis && other.index === index;
      element.classList.toggle("focused", here(token));
      element.classList.toggle("pinned", here(state.pinned));
      element.setAttribute("aria-selected", here(state.pinned));
      element.tabIndex = here(state.pinned) || (axis !== state.pinned.axis && index === 0) ? 0 : -1;
    });
  }
  fill(reading, ...told(token, line));
  moveCursors(token.axis, token.index);
  const map = picked();
  if (map) moveBands(map, token);
}

// Sentences on a token.
function told(token, line) {
  const {axis, index} = token;
  const text = tokensOf(axis, index + 1)[index];
  const said = [make("div", {}, make("span", {class: "faint"}, `${axis} step ${index} `),
    ...surprise(token))];
  const map = picked();
  if (line) {
    const head = state.head === MEAN ? (map.heads.length > 1 ? "mean of heads, " : "") : `head ${state.head}, `;
    const does = line.only ? `the output ${map.verb}`
      : line.forward ? `it ${map.verb}` : `what ${map.verb} it`;
    const own = line.only && line.axis === axis ? ` (here ${number(line.values[index])})` : "";
    said.push(make("div", {}, make("span", {class: "faint"}, `${head}${does}${own}: `), ...best(line)));
  } else if (map) {
    said.push(make("div", {class: "faint"},
      `the map is of ${map.rows === map.columns ? map.rows : `${map.rows} and ${map.columns}`}`));
  }
  const trace = data.traces[state.trace];
  if (trace && trace.axis === axis && Object.keys(trace.gates).length) {
    said.push(make("div", {}, make("span", {class: "faint"}, "mean gates: "),
      Object.entries(trace.gates).map(([name, curve]) => `${name} ${number(curve[index])}`).join(", ")));
  }
  return [make("div", {class: "spoken mono"}, ...spelled(text)), make("div", {class: "said"}, ...said)];
}

function surprise({axis, index}) {
  if (!data.losses || data.losses.axis !== axis) return [];
  return ["loss ", make("b", {}, number(data.losses.nats[index])), " nats, expected ",
    quoted(data.losses.expected[index])];
}

// The tokens with the largest numbers of a line, and those.
function best(line) {
  const tokens = tokensOf(line.axis, line.values.length);
  const order = Array.from(line.values.keys())
    .filter((at) => line.values[at] !== 0)
    .sort((a, b) => (Math.abs(line.values[b]) || 0) - (Math.abs(line.values[a]) || 0));
  if (!order.length) return ["nothing"];
  return order.slice(0, BEST).map((at) => make("span", {class: "named"},
    quoted(tokens[at]), make("sub", {}, String(at)), ` ${number(line.values[at])}`));
}

// Tokens of the axes: those of the text, and of the picked map's others.
function drawStrips() {
  const map = picked();
  const axes = new Map(Object.entries(data.labels).map(([axis, tokens]) => [axis, tokens.length]));
  if (map) [map.rows, map.columns].forEach((axis, i) => {
    if (!axes.has(axis) && !(i === 0 && isOutput(map))) axes.set(axis, map.size[i]);
  });
  strips.clear();
  fill(strip);
  for (const [axis, count] of axes) {
    const tokens = tokensOf(axis, count);
    const dense = tokens.filter((token) => [...token].length === 1).length > count / 2;
    const elements = tokens.map((token, index) => make("span",
      {class: [...token].length > 1 ? "token long" : "token", role: "option", "data-index": index},
      ...spelled(token)));
    strips.set(axis, elements);
    const at = (event) => {
      const element = event.target.closest(".token");
      return element && {axis, index: Number(element.dataset.index)};
    };
    const box = make("div",
      {
        class: dense ? "strip dense mono" : "strip mono", role: "listbox", "aria-label": `tokens: ${axis}`,
        onpointerover: (event) => { if (at(event)) hover(at(event)); },
        onpointerleave: () => hover(null),
        onkeydown: (event) => step(event, axis, at(event)),
      },
      // A line of the text ends where it did, and a word does not.
      ...elements.flatMap((element, index) =>
        tokens[index].endsWith("\u21b5") ? [element, make("br")] : [element]));
    box.addEventListener("focusin", (event) => pin(at(event)));
    strip.append(make("div", {class: "faint"}, axis), box);
  }
}

function step(event, axis, {index}) {
  const elements = strips.get(axis);
  const to = {ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: elements.length - 1}[event.key];
  if (elements[to]) {
    elements[to].focus();
    event.preventDefault();
  }
}

// The heads of the picked map, small, to pick one.
function drawHeads() {
  const map = picked();
  const all = map.heads.length > 1 ? [MEAN, ...map.heads.keys()] : [];
  fill(heads, ...all.map((head) => {
    const canvas = drawGrid(make("canvas"), gridOf(map, head));
    const name = head === MEAN ? "mean" : `head ${head}`;
    return make("button",
      {type: "button", "aria-pressed": head === state.head, onclick: () => pickHead(head)}, canvas, name);
  }));
}

function pickHead(head) {
  state.head = head;
  for (const [at, button] of [...heads.children].entries()) {
    button.setAttribute("aria-pressed", at === head + 1);
  }
  drawMap();
  refresh();
}

function pickMap(index) {
  state.map = index;
  state.head = MEAN;
  state.hovered = null; // it may be on no axis of this map
  const map = picked();
  fill(direction);
  if (map.rows === map.columns) {
    const options = [["forward", `what it ${map.verb}`], ["backward", `what ${map.verb} it`]];
    fill(direction, chooser("Show", options, state.forward ? "forward" : "backward", (value) => {
      state.forward = value === "forward";
      refresh();
    }));
  }
  drawHeads();
  drawStrips();
  const onMap = [map.rows, map.columns].includes(state.pinned?.axis) && strips.has(state.pinned.axis);
  if (!onMap) state.pinned = first(map);
  drawMap();
  refresh();
}

// The token that is shown at first sight: the last one, which has all others to look at.
function first(map) {
  const axis = [map?.rows, map?.columns, data.losses?.axis, ...strips.keys()].find((each) => strips.has(each));
  return {axis, index: strips.get(axis).length - 1};
}

// The picked map: a canvas, its labels where there is room, and bands for what is pointed at.
function drawMap() {
  const map = picked();
  const grid = gridOf(map, state.head);
  const [height, width] = map.size.map((count) => Math.min(MAP_SIDE, count * CELL));
  const canvas = drawGrid(make("canvas"), grid);
  const caption = make("figcaption", {class: "faint"}, "Point at the map for single numbers.");
  const cellAt = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const at = (place, side, count) => Math.max(0, Math.min(count - 1, Math.floor((place / side) * count)));
    return {
      row: at(event.clientY - box.top, box.height, grid.rows),
      column: at(event.clientX - box.left, box.width, grid.columns),
    };
  };
  const tokenAt = ({row, column}) => {
    const own = state.forward && strips.has(map.rows);
    return own ? {axis: map.rows, index: row} : {axis: map.columns, index: column};
  };
  const stage = make("div",
    {
      class: Math.max(...map.size) > MAP_SIDE ? "stage" : "stage crisp",
      style: `width: ${width}px; height: ${height}px`,
      onpointermove: (event) => {
        const cell = cellAt(event);
        fill(caption, ...cellTold(map, grid, cell));
        hover(tokenAt(cell));
        moveBand("row", cell.row, grid.rows);
        moveBand("column", cell.column, grid.columns);
      },
      onpointerleave: () => hover(null),
      onclick: (event) => pin(tokenAt(cellAt(event))),
    },
    canvas, make("div", {class: "band row"}), make("div", {class: "band column"}));
  const labels = (axis, count, side, name, extent) => {
    const named = axis in data.labels && side / count >= NAMED_CELL;
    return make("div", {class: `${name} mono`, style: extent},
      ...(named ? tokensOf(axis, count).map((token) => make("span", {}, token)) : []));
  };
  fill(figure,
    labels(map.columns, grid.columns, width, "column-labels", `width: ${width}px`),
    labels(map.rows, grid.rows, height, "row-labels", `height: ${height}px`), stage,
    legend(grid, map.unit), caption, make("p", {class: "faint"}, map.note));
}

function cellTold(map, grid, {row, column}) {
  const name = (axis, index, count) =>
    [quoted(tokensOf(axis, count)[index]), make("sub", {}, String(index))];
  const own = !isOutput(map) ? [...name(map.rows, row, grid.rows), ` ${map.verb} `] : [];
  return [...own, ...name(map.columns, column, grid.columns), `: ${map.unit} `,
    make("b", {class: "number"}, number(grid.values[row * grid.columns + column]))];
}

function moveBand(name, index, count) {
  const band = figure.querySelector(`.band.${name}`);
  const [start, size] = name === "row" ? ["top", "height"] : ["left", "width"];
  band.hidden = index === null || count === 1;
  band.style[start] = `${(100 * index) / count}%`;
  band.style[size] = `${100 / count}%`;
}

function moveBands(map, token) {
  const isRow = token.axis === map.rows && (state.forward || map.rows !== map.columns);
  moveBand("row", isRow ? token.index : null, map.size[0]);
  moveBand("column", !isRow && token.axis === map.columns ? token.index : null, map.size[1]);
}

function pickTrace(index) {
  state.trace = index;
  const trace = data.traces[index];
  fill(recurrence, ...traceCharts(trace, tokensOf(trace.axis), ...pointers(trace.axis)));
  refresh();
}

const pointers = (axis) => [
  (index) => hover(index === null ? null : {axis, index}),
  (index) => pin({axis, index}),
];

const numbered = (items, name) => items.map((item, index) => [index, name(item)]);

function head() {
  const counts = Object.entries(data.labels).map(([axis, tokens]) => `${tokens.length} tokens of ${axis}`);
  const left = data.left_out.length ? make("details", data.left_out.length < 4 ? {open: ""} : {},
    make("summary", {}, `not shown: ${data.left_out.length}`),
    make("ul", {}, ...data.left_out.map((line) => make("li", {}, line)))) : null;
  return [
    make("h1", {}, data.title),
    data.prediction === null ? null
      : make("p", {class: "prediction"}, make("span", {class: "faint"}, "prediction "), data.prediction),
    make("p", {class: "faint"},
      [...counts, data.losses && `mean loss ${number(data.losses.mean)} nats a token`].filter(Boolean).join(", "),
      `; ${data.exactness}. Here a number of a map or of a hidden state is one of 64 levels, off by at`,
      " most 1/60 of the largest of its row or unit, or 1/30 where there are both signs; exact numbers",
      " are in maps.npz. Steps are counted from 0."),
    left,
  ];
}

function draw() {
  const map = chooser("Map", numbered(data.maps, ({path, kind}) => `${path} (${kind})`), state.map,
    (value) => pickMap(Number(value)));
  const trace = chooser("Layer", numbered(data.traces, ({path, cell}) => `${path} (${cell})`), state.trace,
    (value) => pickTrace(Number(value)));
  fill(page, ...head(), reading,
    ...(data.maps.length
      ? [make("h2", {}, "Maps"), map, direction, heads]
      : [make("h2", {}, "Tokens"), make("p", {class: "faint"}, "No layer of attention was seen.")]),
    make("p", {class: "faint"}, "Point at a token; click on it, or walk with the arrow keys, to keep it."),
    make("div", {class: "beside"}, strip, data.maps.length ? figure : null));
  if (data.maps.length) pickMap(state.map);
  else {
    drawStrips();
    state.pinned ??= first(null);
  }
  if (data.losses) {
    const {axis, nats, mean} = data.losses;
    page.append(
      make("h2", {}, "Loss of each token"),
      timeline(axis, nats.length, bars(nats), [`${rounded(largest(nats.map(Number)), 3)} nats`, "0"],
        ...pointers(axis)),
      ticks(data.losses.expected));
  }
  page.append(make("h2", {}, "Recurrence"));
  if (data.traces.length) {
    page.append(trace, recurrence);
    pickTrace(state.trace);
  } else page.append(make("p", {class: "faint"}, "No recurrent layer was seen."));
  refresh();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  ramps = null;
  draw();
});
// Of a translator the side that writes is shown first.
state.map = Math.max(0, data.maps.findIndex((map) => map.rows === data.losses?.axis));
state.trace = Math.max(0, data.traces.findIndex((trace) => trace.axis === data.losses?.axis));
draw();
