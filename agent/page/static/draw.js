// Elements and drawings. Text goes in as text: names come from outside.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element; children are elements, or strings that stay strings. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function draw(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// A shape of its own for each state: colour alone tells not everybody.
const SHAPES = {
  healthy: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1Zm-1 10L3.800 7.800l1.400-1.400L7 8.200l3.800-3.800 1.400 1.400Z",
  degraded: "M8 1 15.500 14.500H.500ZM7.100 6v4.500h1.800V6Zm0 5.500v1.700h1.800v-1.700Z",
  failing: "M5 1h6l4 4v6l-4 4H5l-4-4V5Zm.500 3L4 5.500 6.500 8 4 10.500 5.500 12 8 9.500 10.500 12 12 10.500 9.500 8 12 5.500 10.500 4 8 6.500Z",
  learning: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1Zm0 2a5 5 0 1 1 0 10A5 5 0 0 1 8 3Z",
};

export function state(word) {
  const path = draw("path", { d: SHAPES[word] ?? SHAPES.learning, fill: "currentColor", "fill-rule": "evenodd" });
  const icon = draw("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, path);
  return make("span", { class: `state ${word in SHAPES ? word : "learning"}` }, icon, word);
}

export function bar(health, word) {
  if (health === null) return make("span", { class: "fine" }, "not known yet");
  const percent = Math.round(100 * health);
  const icon = draw("svg", { viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("rect", { class: "back", x: 0.5, y: 0.5, width: 99, height: 11, rx: 3 }),
    draw("rect", { class: "fill", x: 0.5, y: 0.5, width: Math.max(1, 0.99 * percent), height: 11, rx: 3 }));
  return make("span", { class: `bar ${word}` }, icon, make("span", { class: "number" }, `${percent} %`));
}

/** A score the size of a word, with the limit at 1. */
export function spark(scores, newest) {
  const said = newest === null ? "–" : newest.toFixed(2);
  const number = make("span", { class: "number" }, said);
  const known = (scores ?? []).filter((score) => score !== null);
  if (known.length < 2) return make("span", { class: "spark" }, number);
  const most = Math.max(1.25, ...known);
  const y = (score) => 29 - 28 * (score / most);
  const icon = draw("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img" },
    draw("title", {}, `score over the last ${known.length} reports; the dashed line is the limit`),
    draw("line", { class: "limit", x1: 0, x2: 100, y1: y(1), y2: y(1), "vector-effect": "non-scaling-stroke" }),
    draw("path", { class: "curve", "vector-effect": "non-scaling-stroke",
      d: path(scores.map((_, i) => (100 * i) / (scores.length - 1)), scores, (x) => x, y) }));
  return make("span", { class: "spark" }, icon, number);
}

function path(xs, ys, x, y) {
  let pen = "M";
  let d = "";
  xs.forEach((value, i) => {
    if (ys[i] === null) { pen = "M"; return; }
    d += `${pen}${x(value).toFixed(2)} ${y(ys[i]).toFixed(2)}`;
    pen = "L";
  });
  return d;
}

/** As many digits as tell the ends of a range apart. */
const digitsFor = (range) => Math.min(6, Math.max(0, 1 - Math.floor(Math.log10(range || 1))));

/**
 * A plot with axes, as wide as its place. From zero to the top, or, if it is free, over the range of
 * the values; a bound of the channel is drawn where it is near.
 */
export function plot(title, times, values, { top, limit, digits = 1, width = 360, height = 170, clock,
  free = false, bounds = [], strong = false, dot = true, title: hint = "" }) {
  const card = make("figure", { class: strong ? "card strong" : "card" }, make("h3", {}, title));
  card.style.margin = "0";
  const known = values.filter((value) => value !== null);
  if (known.length < 2) {
    card.append(make("p", { class: "fine" }, "not enough told yet"));
    return card;
  }
  const [left, right, low, high] = [free ? 48 : 36, 8, height - 24, 10];
  let [least, most] = [0, top ?? Math.max(limit ? 1.25 * limit : 0, ...known) * 1.05];
  if (free) {
    [least, most] = [Math.min(...known), Math.max(...known)];
    const margin = 0.08 * (most - least) || 0.01 * Math.abs(most) || 1;
    [least, most] = [least - margin, most + margin];
    digits = digitsFor(most - least);
  }
  const [from, to] = [times[0], times[times.length - 1]];
  const x = (t) => left + ((width - left - right) * (t - from)) / Math.max(to - from, 1e-9);
  const y = (v) => low - ((low - high) * (v - least)) / (most - least || 1);
  const last = values.findLastIndex((value) => value !== null);
  const newest = values[last];
  const icon = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" },
    draw("title", {}, `${title}${hint && ` ${hint}`}: newest ${newest.toFixed(digits)}, least ${Math.min(...known).toFixed(digits)}, ` +
      `most ${Math.max(...known).toFixed(digits)}, ${clock(from)} to ${clock(to)}`));
  for (const at of [least, (least + most) / 2, most]) {
    icon.append(
      draw("line", { class: "axis", x1: left, x2: width - right, y1: y(at), y2: y(at) }),
      // The limit's own word stands in the margin, too.
      limit && Math.abs(y(at) - y(limit)) < 12 ? ""
        : draw("text", { x: left - 5, y: y(at) + 4, "text-anchor": "end" }, at.toFixed(!free && most >= 20 ? 0 : digits)));
  }
  for (const bound of bounds) {
    if (bound !== null && bound > least && bound < most) {
      icon.append(draw("line", { class: "limit", x1: left, x2: width - right, y1: y(bound), y2: y(bound) }));
    }
  }
  if (limit) {
    icon.append(
      draw("line", { class: "limit", x1: left, x2: width - right, y1: y(limit), y2: y(limit) }),
      draw("text", { class: "over", x: left - 5, y: y(limit) + 4, "text-anchor": "end" }, "limit"));
  }
  icon.append(
    draw("path", { class: "curve", d: path(times, values, x, y) }),
    dot ? draw("circle", { class: "dot", cx: x(times[last]), cy: y(newest), r: 3 }) : "",
    // On a narrow screen the two would stand in each other.
    6.5 * (clock(from).length + clock(to).length) < width - left - right
      ? draw("text", { x: left, y: height - 6 }, clock(from)) : "",
    draw("text", { x: width - right, y: height - 6, "text-anchor": "end" }, clock(to)));
  card.append(icon);
  return card;
}
