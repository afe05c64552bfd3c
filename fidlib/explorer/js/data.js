/**
 * What is shown and what is chosen: the unpacked scene and the state.
 *
 * @typedef {{title: string, classes: string[], colors: string[], viridis: string[],
 *   images: number, triggers: number, shape: [number, number], columns: number,
 *   models: {name: string, color: string, marker: string, values: Object, film: ?number[]}[],
 *   maps: {name: string, common: boolean, note: string}[], tables: Object[],
 *   planes: {corners: number[], side: number}[],
 *   measures: {name: string, title: string, unit: string, direction: number}[],
 *   arrays: Object<string, {kind: string, start: number, count: number, scale: ?number}>}} About
 */
import { make } from "./dom.js";

const KIND = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i2: Int16Array, f4: Float32Array };

/** What is shown: N images and then T triggers, in rows; models by their place m. */
export class Scene {
  /** @param {About} about @param {BufferSource} blob */
  static async read(about, blob) {
    const stream = new Blob([blob]).stream().pipeThrough(new DecompressionStream("gzip"));
    const raw = await new Response(stream).arrayBuffer();
    const arrays = {};
    for (const [name, { kind, start, count, scale }] of Object.entries(about.arrays)) {
      const part = new KIND[kind](raw, start, count);
      arrays[name] = scale ? Float32Array.from(part, (value) => value * scale) : part;
    }
    const scene = new Scene();
    const sheet = new Blob([arrays.sheet], { type: "image/webp" });
    const names = about.models.map((model) => model.name);
    const tables = [{ title: "models shown here", rows: about.models }, ...about.tables];
    Object.assign(scene, { about, arrays, names, tables, images: about.images });
    Object.assign(scene, { labels: arrays.labels, count: about.images + about.triggers });
    scene.sheet = await createImageBitmap(sheet);
    scene.url = URL.createObjectURL(sheet);
    return scene;
  }

  /** @returns {number[]} places of the left and the right model */
  pair({ left, right }) {
    return [this.names.indexOf(left), this.names.indexOf(right)];
  }

  map(values) {
    return this.about.maps.find((one) => one.name === values.map);
  }

  /** An image's part of an array. @returns {ArrayLike<number>} */
  row(name, i) {
    const array = this.arrays[name];
    const size = array.length / this.count;
    return array.subarray(i * size, (i + 1) * size);
  }

  /** What two models answer, how far features moved from one to the other, null where D
   * differs, and the distance that one in twenty exceeds. */
  compare(values) {
    const pair = this.pair(values);
    const [before, after] = pair.map((m) => this.arrays[`answers ${m}`]);
    const name = `moved ${Math.min(...pair)} ${Math.max(...pair)}`;
    const moved = pair[0] === pair[1] ? new Float32Array(this.count) : this.arrays[name];
    const sorted = moved?.slice(0, this.images).sort();
    const far = sorted?.[Math.floor(0.95 * (sorted.length - 1))] || 1;
    return { before, after, moved: moved ?? null, far };
  }

  /** What an image is called, and the name of its class. @returns {[string, string]} */
  title(i) {
    const what = i < this.images ? `image ${this.arrays.rows[i]}` : `trigger ${i - this.images}`;
    return [what, this.about.classes[this.labels[i]]];
  }

  /** An image as an element. @param {number} size of its longer side, CSS pixels */
  picture(i, size) {
    const { shape, columns } = this.about;
    const [h, w] = shape.map((side) => (side * size) / Math.max(...shape));
    const [x, y] = [(i % columns) * w, Math.floor(i / columns) * h];
    const place = `-${x}px -${y}px/${columns * w}px auto`;
    const style = `width:${w}px;height:${h}px;background:url(${this.url}) ${place}`;
    return make("span.picture", { style });
  }

  /** @returns {Uint8ClampedArray} red, green, blue and alpha of an image */
  pixels(i) {
    const { shape, columns } = this.about;
    const [h, w] = shape;
    const context = new OffscreenCanvas(w, h).getContext("2d");
    context.drawImage(this.sheet, -(i % columns) * w, -Math.floor(i / columns) * h);
    return context.getImageData(0, 0, w, h).data;
  }
}

/** What is chosen, as plain JSON, and who wants to know when it changes. */
export class State {
  /** @param {Object} values */
  constructor(values) {
    Object.assign(this, { values, listeners: [] });
  }

  /** Call a function when one of these names changes. @param {string} names */
  on(names, listener) {
    this.listeners.push([names.split(" "), listener]);
  }

  /** The same, and call it at once. @param {string} names */
  now(names, listener) {
    this.on(names, listener);
    listener([]);
  }

  /** Change some values. @param {Object} values */
  set(values) {
    const changed = Object.keys(values).filter(
      (name) => JSON.stringify(values[name]) !== JSON.stringify(this.values[name]),
    );
    Object.assign(this.values, values);
    for (const [names, listener] of this.listeners)
      if (names.some((name) => changed.includes(name))) listener(changed);
  }
}
