/**
 * What all parts of the explorer share: the unpacked scene, its images, its state.
 *
 * @typedef {{name: string, color: string, marker: string, dim: number,
 *   values: Object<string, ?number>, film: ?number[]}} Model
 * @typedef {{name: string, common: boolean, note: string}} Layer
 * @typedef {{name: string, title: string, unit: string, direction: number}} Measure
 * @typedef {{title: string, classes: string[], colors: string[], viridis: string[],
 *   images: number, triggers: number, shape: [number, number], columns: number,
 *   neighbors: number, models: Model[], maps: Layer[], measures: Measure[],
 *   tables: {title: string, rows: Object[]}[],
 *   planes: {corners: number[], side: number, steps: number}[],
 *   arrays: Object<string, {kind: string, start: number, count: number, scale: ?number}>
 * }} About
 */

/**
 * An element: `make("div.bar", ...)` with properties and children in any order. Texts
 * become text, never markup.
 * @param {string} tag @param {...(Node|string|Object)} parts
 */
export function make(tag, ...parts) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name);
  node.className = classes.join(" ");
  for (const part of parts) {
    if (part instanceof Node || typeof part !== "object") node.append(part);
    else for (const [key, value] of Object.entries(part)) set(node, key, value);
  }
  return node;
}

const set = (node, key, value) =>
  key.includes("-") || key === "role" ? node.setAttribute(key, value) : (node[key] = value);

/** Buttons side by side, of one purpose. */
export const joined = (title, ...kids) =>
  make("div.joined", { role: "group", "aria-label": title }, ...kids);

/** Let a drag go on outside of a canvas. */
export function capture(canvas, event) {
  try {
    canvas.setPointerCapture(event.pointerId);
  } catch {
    // a pointer that is gone already, or was made up
  }
}

/** A labelled `<select>`. @param {string[]} options */
export function choice(title, options, change) {
  const node = make("select", { onchange: () => change(node.value), "aria-label": title });
  for (const option of options) node.add(new Option(option, option));
  return node;
}

/** A button. @param {string} text @param {string} title what it does, in words */
export const button = (text, title, onclick) =>
  make("button", { type: "button", textContent: text, title, "aria-label": title, onclick });

/** A slider with its name for a screen reader. @param {Object} props */
export const slider = (title, props) =>
  make("input", { type: "range", title, "aria-label": title, ...props });

/** A number in at most four digits. @param {?number} value */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return size && size < 0.001 ? value.toExponential(1) : String(+value.toPrecision(3));
}

/** Probabilities of scores. @param {ArrayLike<number>} logits */
export function softmax(logits) {
  const scores = Array.from(logits);
  const top = Math.max(...scores);
  const parts = scores.map((score) => Math.exp(score - top));
  const sum = parts.reduce((a, b) => a + b, 0);
  return parts.map((part) => part / sum);
}

/** Red, green and blue of `#rrggbb`. @param {string} color */
export const rgb = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

/** A colour on the way from one to another. @returns {string} */
export function between(from, to, share) {
  const [a, b] = [rgb(from), rgb(to)];
  const parts = a.map((v, n) => Math.round(v + share * (b[n] - v)));
  return `#${parts.map((v) => v.toString(16).padStart(2, "0")).join("")}`;
}

/** Whether a point is in a polygon, by crossings. @param {number[][]} path */
export function inside(x, y, path) {
  let within = false;
  for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
    const [a, b] = path[i];
    const [c, d] = path[j];
    if (b > y !== d > y && x < ((c - a) * (y - b)) / (d - b) + a) within = !within;
  }
  return within;
}

/** A canvas of that many CSS pixels, sharp on any screen, and cleared. */
export function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** Where an event is on an element, CSS pixels from its inner corner. */
export function spot(event, node) {
  const box = node.getBoundingClientRect();
  return [event.clientX - box.left - node.clientLeft, event.clientY - box.top - node.clientTop];
}

/** Offer a file for download. @param {Blob} blob */
export function download(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** The arrays of the blob, by name. @param {About} about @param {BufferSource} blob */
export async function unpack(about, blob) {
  const stream = new Blob([blob]).stream().pipeThrough(new DecompressionStream("gzip"));
  const raw = await new Response(stream).arrayBuffer();
  const kinds = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };
  Object.assign(kinds, { i2: Int16Array, f4: Float32Array });
  const found = {};
  for (const [name, { kind, start, count, scale }] of Object.entries(about.arrays)) {
    const part = new kinds[kind](raw, start, count);
    found[name] = scale ? Float32Array.from(part, (value) => value * scale) : part;
  }
  return found;
}

/** What is shown: its arrays and its images. */
export class Scene {
  /** @param {About} about @param {BufferSource} blob */
  static async read(about, blob) {
    const scene = new Scene();
    scene.about = about;
    scene.arrays = await unpack(about, blob);
    scene.images = about.images;
    scene.count = about.images + about.triggers;
    scene.labels = scene.arrays.labels;
    scene.names = about.models.map((model) => model.name);
    const sheet = new Blob([scene.arrays.sheet], { type: "image/webp" });
    scene.sheet = await createImageBitmap(sheet);
    scene.url = URL.createObjectURL(sheet);
    return scene;
  }

  /** @returns {number} a model's place among all @param {string} name */
  index(name) {
    return this.names.indexOf(name);
  }

  /** @returns {ArrayLike<number>} class of each image, as a model names it */
  answers(m) {
    return this.arrays[`answers ${m}`];
  }

  /** @returns {Float32Array} K scores of an image, less a number of its own */
  logits(m, i) {
    const classes = this.about.classes.length;
    return this.arrays[`logits ${m}`].subarray(i * classes, (i + 1) * classes);
  }

  /** @returns {ArrayLike<number>} the nearest images of an image */
  near(m, i) {
    const k = this.about.neighbors;
    return this.arrays[`neighbors ${m}`].subarray(i * k, (i + 1) * k);
  }

  /** @returns {?Float32Array} how far features moved; null where D differs */
  moved(a, b) {
    if (a === b) return new Float32Array(this.count);
    return this.arrays[`moved ${Math.min(a, b)} ${Math.max(a, b)}`] ?? null;
  }

  /** What an image is called. @param {number} i */
  title(i) {
    const what = i < this.images ? `image ${this.arrays.rows[i]}` : `trigger ${i - this.images}`;
    return `${what}, class ${this.about.classes[this.labels[i]]}`;
  }

  /** Draw an image into a box of a canvas. */
  draw(context, i, x, y, width, height) {
    const [h, w] = this.about.shape;
    const left = (i % this.about.columns) * w;
    const top = Math.floor(i / this.about.columns) * h;
    context.imageSmoothingEnabled = width < w;
    context.drawImage(this.sheet, left, top, w, h, x, y, width, height);
  }

  /** An image as an element. @param {number} size of its longer side, CSS pixels */
  picture(i, size) {
    const [h, w] = this.about.shape;
    const { columns } = this.about;
    const scale = size / Math.max(h, w);
    const [x, y] = [(i % columns) * w * scale, Math.floor(i / columns) * h * scale];
    const node = make("span.picture");
    node.style.cssText =
      `width:${w * scale}px;height:${h * scale}px;background:url(${this.url}) ` +
      `-${x}px -${y}px/${columns * w * scale}px auto`;
    return node;
  }

  /** @returns {Uint8ClampedArray} red, green, blue and alpha of an image */
  pixels(i) {
    const [h, w] = this.about.shape;
    const context = new OffscreenCanvas(w, h).getContext("2d");
    this.draw(context, i, 0, 0, w, h);
    return context.getImageData(0, 0, w, h).data;
  }
}

/** What is chosen, as plain JSON, and who wants to know when it changes. */
export class State {
  /** @param {Object} values */
  constructor(values) {
    Object.assign(this, { values, listeners: [] });
  }

  /** Call `told` when one of these names changes. @param {string} names */
  on(names, told) {
    this.listeners.push([new Set(names.split(" ")), told]);
  }

  /** The same, and call it at once. @param {string} names */
  now(names, told) {
    this.on(names, told);
    told();
  }

  /** Change some values. @param {Object} values */
  set(values) {
    const changed = Object.keys(values).filter(
      (name) =>
        values[name] !== this.values[name] &&
        JSON.stringify(values[name]) !== JSON.stringify(this.values[name]),
    );
    Object.assign(this.values, values);
    for (const [names, told] of this.listeners) {
      if (changed.some((name) => names.has(name) || names.has("*"))) told(changed);
    }
  }
}
