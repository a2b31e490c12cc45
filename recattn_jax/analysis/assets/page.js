"use strict";
// What every page here shares. Text from data only ever becomes text: elements are made by `make`,
// which knows no markup.

const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "line", "rect", "circle", "text", "title", "polyline", "polygon"]);

// make("td", {class: "number"}, "0.5"): an element with attributes and children, listeners as
// {onclick: f}. Children are elements or text.
function make(tag, attributes = {}, ...children) {
  const element = SVG_TAGS.has(tag)
    ? document.createElementNS(SVG, tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element[name] = value;
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Replaces all that an element holds.
function fill(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// A labelled list to choose from: options are [value, text] pairs.
function chooser(label, options, chosen, onchange) {
  const select = make("select", {onchange: () => onchange(select.value)},
    ...options.map(([value, text]) => make("option", {value}, text)));
  select.value = chosen;
  return make("label", {class: "chooser"}, label + " ", select);
}

// A number as a person reads it.
function rounded(value, digits = 4) {
  if (value === null || value === undefined) return "";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Number(value.toPrecision(digits)).toString();
}
