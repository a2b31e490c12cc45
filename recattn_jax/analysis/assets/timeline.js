// Charts over the steps of an axis, one beneath the other, on one scale.

const UNIT_HEIGHT = 5; // pixels of a hidden unit
const LINE_COLOURS = 6; // of the style sheet

// A chart of any content, which tells which step is pointed at: `point` and `pin` take the step, and
// `point` null at the end. A cursor is shown by `moveCursors`.
function timeline(axis, count, content, scale, point, pin) {
  const stepAt = (event) => {
    const {left, width} = event.currentTarget.getBoundingClientRect();
    return Math.max(0, Math.min(count - 1, Math.floor(((event.clientX - left) / width) * count)));
  };
  const plot = make("div",
    {
      class: "plot",
      onpointermove: (event) => point(stepAt(event)),
      onpointerleave: () => point(null),
      onclick: (event) => pin(stepAt(event)),
    },
    content, make("div", {class: "cursor", "data-axis": axis, "data-count": count}));
  return make("div", {class: "timeline"},
    make("div", {class: "scale faint"}, ...scale.map((text) => make("span", {}, text))), plot);
}

function moveCursors(axis, step) {
  for (const cursor of document.querySelectorAll(".cursor")) {
    cursor.hidden = cursor.dataset.axis !== axis;
    cursor.style.left = `${(100 * step) / cursor.dataset.count}%`;
    cursor.style.width = `${100 / cursor.dataset.count}%`;
  }
}

// Tokens beneath a chart where they have room, or else the numbers of some steps.
function ticks(tokens) {
  const count = tokens.length;
  const room = 1080 / count; // pixels, on a wide screen
  const named = Math.max(...tokens.map((token) => [...token].length)) * 8 < room;
  const every = named ? 1 : [1, 2, 5, 10, 20, 50, 100].find((steps) => steps * room > 36);
  const marks = tokens.map((token, step) => step % every ? null
    : make("span", {style: `left: ${(100 * (step + 0.5)) / count}%`}, named ? token : String(step)));
  return make("div", {class: named ? "ticks mono" : "ticks faint"}, ...marks);
}

function stretched(count, ...children) {
  return make("svg", {viewBox: `0 0 ${count} 100`, preserveAspectRatio: "none", "aria-hidden": "true"},
    ...children);
}

function bars(values) {
  const most = largest(values.map(Number)) || 1;
  return stretched(values.length, ...values.map((value, step) => {
    const height = (100 * value) / most;
    return make("rect", {class: "bar", x: step + 0.1, y: 100 - height, width: 0.8, height});
  }));
}

// Lines through the middle of each step, from 0 (or less) to 1 (or more).
function lines(curves, low, high) {
  const count = curves[0].length;
  return stretched(count, ...curves.map((curve, number) => {
    const height = (value) => 100 - (96 * (value - low)) / (high - low) - 2;
    const points = curve.flatMap((value, step) => value === null ? [] : [[step + 0.5, height(value)]]);
    if (!points.length) return null;
    const all = [[0, points[0][1]], ...points, [count, points.at(-1)[1]]];
    return make("polyline", {class: `line${number % LINE_COLOURS}`, points: all.join(" ")});
  }));
}

// Gates and hidden state of a recurrent layer.
function traceCharts(trace, tokens, point, pin) {
  const names = Object.keys(trace.gates);
  const curves = Object.values(trace.gates);
  const parts = [];
  if (names.length) {
    const numbers = curves.flat().filter((value) => value !== null);
    const [low, high] = [Math.min(0, ...numbers), Math.max(1, ...numbers)];
    parts.push(
      make("h3", {}, "Gates, means over units ", ...names.map((name, number) =>
        make("span", {class: `key key${number % LINE_COLOURS}`}, name))),
      timeline(trace.axis, tokens.length, lines(curves, low, high),
        [rounded(high, 3), rounded(low, 3)], point, pin));
  } else {
    parts.push(make("p", {class: "faint"}, `${trace.cell} has no gates.`));
  }
  const grid = decoded(trace.states, tokens.length, true, 1);
  const [kept, all] = [trace.units.length, trace.size[1]];
  const which = kept < all ? `the ${kept} of ${all} units that vary most` : `all ${all} units`;
  const states = drawGrid(make("canvas", {class: "states"}), grid);
  states.style.height = `${Math.max(40, kept * UNIT_HEIGHT)}px`;
  parts.push(
    make("h3", {}, `Hidden state, ${which} `, legend(grid, "hidden state")),
    timeline(trace.axis, tokens.length, states,
      [`unit ${trace.units[0]}`, `unit ${trace.units.at(-1)}`], point, pin),
    ticks(tokens));
  return parts;
}
