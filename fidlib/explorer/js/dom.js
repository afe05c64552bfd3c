/** Elements and pictures: what all parts of the explorer are made of. */

const SHAPES = /^(svg|path|polygon|polyline|line|circle|rect|text)$/;

/** Give an element properties, or attributes where it has no such property. */
export function put(node, properties) {
  for (const [key, value] of Object.entries(properties)) {
    const isOwn = typeof value === "function" || (key in node && !(node instanceof SVGElement));
    if (isOwn) node[key] = value;
    else node.setAttribute(key, value);
  }
}

/** An element such as `make("div.bar", ...)`. Texts become text, never markup; false is none.
 * @param {string} tag @param {...(Node|string|Object|false)} parts children and properties */
export function make(tag, ...parts) {
  const [name, ...classes] = tag.split(".");
  const node = SHAPES.test(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  if (classes.length) node.setAttribute("class", classes.join(" "));
  for (const part of parts.filter((one) => one !== false)) {
    if (part instanceof Node || typeof part !== "object") node.append(part);
    else put(node, part);
  }
  return node;
}

/** Elements of one purpose, named for a screen reader. @param {string} tag */
export const group = (tag, title, ...kids) =>
  make(tag, { role: "group", "aria-label": title }, ...kids);

/** A `<select>`. @param {(string|[string, string])[]} options texts, or texts and values */
export function choice(title, options, change) {
  const node = make("select", { onchange: () => change(node.value), "aria-label": title });
  node.append(...options.map((option) => new Option(...[option].flat())));
  return node;
}

/** A `<select>` of a value of the state. @param {string[]} options */
export function chosen(state, name, title, options) {
  const node = choice(title, options, (value) => state.set({ [name]: value }));
  state.now(name, () => (node.value = state.values[name]));
  return node;
}

/** A button. @param {string} text @param {string} title what it does, in words */
export const button = (text, title, onclick) =>
  make("button", { type: "button", textContent: text, title, "aria-label": title, onclick });

/** Buttons side by side, of which one is pressed: each sets a value of the state.
 * @param {[any, string, string][]} options value, text and what it does, in words */
export function toggles(state, name, title, options) {
  const nodes = options.map(([value, text, what]) => {
    const node = button(text, what, () => state.set({ [name]: value }));
    state.now(name, () => (node.ariaPressed = state.values[name] === value));
    return node;
  });
  return group("div.joined", title, ...nodes);
}

/** A slider with its name for a screen reader. @param {Object} props */
export const slider = (title, props) =>
  make("input", { type: "range", title, "aria-label": title, ...props });

/** A number in at most four digits. @param {?number} value */
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  if (value && Math.abs(value) < 1e-4) return value.toExponential(1);
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}

/** Red, green and blue of `#rrggbb`. @param {string} color @returns {number[]} */
export const rgb = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

/** A picture of cells. @param {(u: number, v: number) => number[]} color red, green, blue, alpha */
export function raster(side, color) {
  const picture = new ImageData(side, side);
  for (let q = 0; q < side * side; q++)
    picture.data.set(color(q % side, Math.floor(q / side)), 4 * q);
  const canvas = new OffscreenCanvas(side, side);
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}

/** Where an event is on an element that is so many units wide. @returns {number[]} */
export function spot(event, node, width = node.clientWidth) {
  const box = node.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top].map((v) => (v * width) / box.width);
}

/** A list with a value, or without it where it has it. */
export const toggled = (list, value) =>
  list.includes(value) ? list.filter((other) => other !== value) : [...list, value];

/** A point of an array that has two numbers for each. @returns {number[]} */
export const point = (xy, i) => [xy[2 * i], xy[2 * i + 1]];

/** How far apart two points are. @param {number[]} a @param {number[]} b */
export const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

/** Offer a file for download. @param {Blob} blob */
export function download(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
