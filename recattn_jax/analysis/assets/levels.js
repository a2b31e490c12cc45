// Grids of numbers: how they come in the page, and how they are coloured.

const LEVELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const LEVEL_OF = new Float32Array(128).fill(NaN);
for (const [level, letter] of [...LEVELS].entries()) LEVEL_OF[letter.charCodeAt(0)] = level;

// A character is the square root of a share of the largest number of its row; zeros at the end of a
// row are left out. Gives {values, rows, columns, signed, power}, row by row; a colour goes by the
// power of a number's share of the largest.
function decoded(coded, columns, signed, power) {
  const values = new Float32Array(coded.rows.length * columns);
  coded.rows.forEach((row, at) => {
    for (let column = 0; column < row.length; column += 1) {
      const level = LEVEL_OF[row.charCodeAt(column)];
      const root = signed ? (level - 31) / 31 : level / 63;
      values[at * columns + column] = coded.scales[at] * root * Math.abs(root);
    }
  });
  return {values, rows: coded.rows.length, columns, signed, power};
}

function meanOf(grids) {
  const values = new Float32Array(grids[0].values.length);
  for (const grid of grids) grid.values.forEach((value, at) => { values[at] += value / grids.length; });
  return {...grids[0], values};
}

function rowOf(grid, row) {
  return grid.values.subarray(row * grid.columns, (row + 1) * grid.columns);
}

function columnOf(grid, column) {
  return Float32Array.from({length: grid.rows}, (_, row) => grid.values[row * grid.columns + column]);
}

// The largest size of a number among those that are any.
function largest(values) {
  return values.reduce((most, value) => Math.max(most, Math.abs(value) || 0), 0);
}

// Colours, as [red, green, blue], of the 256 steps from nothing to the largest; the style sheet says
// between which, in light and in dark.
let ramps = null;
function palette() {
  if (ramps) return ramps;
  const style = getComputedStyle(document.documentElement);
  const stop = (name) =>
    style.getPropertyValue(name).match(/[0-9a-f]{2}/gi).map((two) => parseInt(two, 16));
  const ramp = (names) => {
    const stops = names.map(stop);
    return Array.from({length: 256}, (_, step) => {
      const place = (step / 255) * (stops.length - 1);
      const from = Math.min(Math.floor(place), stops.length - 2);
      return stops[from].map((one, i) => Math.round(one + (stops[from + 1][i] - one) * (place - from)));
    });
  };
  ramps = {
    only: ramp(["--nothing", "--some", "--most"]),
    positive: ramp(["--nothing", "--positive"]),
    negative: ramp(["--nothing", "--negative"]),
    lost: stop("--warn"),
  };
  return ramps;
}

function colour(value, most, {signed, power}) {
  const {only, positive, negative, lost} = palette();
  if (Number.isNaN(value)) return lost;
  const step = most > 0 ? Math.round(255 * Math.min(1, (Math.abs(value) / most) ** power)) : 0;
  return (signed ? (value < 0 ? negative : positive) : only)[step];
}

// A colour for the ground of a text, and one for the text that can be read on it.
function grounded(element, rgb) {
  const [red, green, blue] = rgb;
  element.style.backgroundColor = `rgb(${rgb.join(" ")})`;
  element.style.color = 0.3 * red + 0.59 * green + 0.11 * blue > 140 ? "#10151d" : "#ffffff";
}

// A canvas with a pixel for a number; the style sheet stretches it.
function drawGrid(canvas, grid) {
  [canvas.width, canvas.height] = [grid.columns, grid.rows];
  const most = largest(grid.values);
  const image = new ImageData(grid.columns, grid.rows);
  grid.values.forEach((value, at) => {
    const rgb = colour(value, most, grid);
    for (let part = 0; part < 3; part += 1) image.data[4 * at + part] = rgb[part];
    image.data[4 * at + 3] = 255;
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// What the colours of a grid mean.
function legend(grid, unit) {
  const most = largest(grid.values);
  const least = grid.signed ? -most : 0;
  const steps = Float32Array.from({length: 101}, (_, i) => least + ((most - least) * i) / 100);
  const shades = drawGrid(make("canvas", {class: "shades"}), {...grid, values: steps, rows: 1, columns: 101});
  return make("div", {class: "legend faint"},
    rounded(least, 3), shades, `${rounded(most, 3)} ${unit}`);
}
