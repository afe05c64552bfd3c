/** Two maps of the same images: hover, lasso, zoom, the way from one to the other. */
import { Scene, State, between, button, inside, make, rgb, sized } from "./data.js";
import { Dots } from "./dots.js";
import { listen } from "./gestures.js";

export const SHOWN = ["all", "answer changed", "wrong", "triggers", "moved most"];
export const COLORED = ["class", "answer", "right or wrong", "distance moved"];
const [RIGHT, WRONG] = ["#3f90da", "#e76300"];
const BLOWN_UP = 5; // times as wide as the other map: on shared axes that is a dot
const REACH = 14; // CSS pixels around a point that belong to it

/** Numbers on the way between two arrays. @returns {ArrayLike<number>} */
function mixed(from, to, share) {
  if (share === 0 || from === to) return from;
  if (share === 1) return to;
  return from.map((value, n) => value + share * (to[n] - value));
}

const known = new WeakMap(); // distances -> what one in twenty exceeds

/** How far images moved, and the distance that one in twenty exceeds. */
export function distances(scene, values) {
  const moved = scene.moved(scene.index(values.left), scene.index(values.right));
  if (moved && !known.has(moved)) {
    const sorted = moved.slice(0, scene.images).sort();
    known.set(moved, sorted[Math.floor(0.95 * (sorted.length - 1))]);
  }
  return { moved, far: moved ? known.get(moved) : 0 };
}

/** @param {Scene} scene @returns {Uint8Array} 1 where an image passes the filters */
export function visible(scene, values) {
  const [left, right] = [values.left, values.right].map((name) => scene.index(name));
  const [before, after] = [scene.answers(left), scene.answers(right)];
  const { moved, far } = distances(scene, values);
  const hidden = new Set(values.hidden);
  const tests = {
    all: () => true,
    "answer changed": (i) => before[i] !== after[i],
    wrong: (i) => after[i] !== scene.labels[i],
    triggers: (i) => i >= scene.images,
    "moved most": (i) => i < scene.images && moved !== null && moved[i] > 0 && moved[i] >= far,
  };
  const passes = tests[values.show];
  return Uint8Array.from({ length: scene.count }, (_, i) =>
    Number(!hidden.has(i < scene.images ? scene.labels[i] : "triggers") && passes(i)),
  );
}

/** The two maps; `node` has a panel for each. */
export class Maps {
  /** @param {Scene} scene @param {State} state @param {Object} heads left and right */
  constructor(scene, state, heads) {
    Object.assign(this, { scene, state, views: {} });
    this.panels = ["left", "right"].map((side) => this.panel(side, heads[side]));
    state.on("left right map", () => this.fit());
    state.on("left right map color show hidden t film selected linked zoom dark size", () =>
      this.repaint(),
    );
    state.on("hover pin corners", () => this.overlay());
    state.on("tool", () => {
      for (const view of Object.values(this.views))
        view.top.classList.toggle("moving", state.values.tool === "move");
    });
  }

  panel(side, head) {
    const title = `Map of the ${side} model. Arrow keys go from image to image, Enter keeps one, space selects it, plus and minus zoom, Escape clears the selection.`;
    const base = make("canvas", { "aria-hidden": "true" });
    const top = make("canvas", { tabIndex: 0, role: "application", "aria-label": title });
    const zoom = make(
      "div.zoom.joined",
      button("+", "zoom in", () => this.zoomed(side, 0.7)),
      button("−", "zoom out", () => this.zoomed(side, 1 / 0.7)),
      button("⤢", "show all", () => this.fit()),
    );
    this.views[side] = { base, top, range: { x: 0, y: 0, half: 1 }, size: 0, lasso: null };
    listen(this, side);
    const stage = make("div.stage", base, top, zoom);
    return make("div.panel", head, stage);
  }

  /** The place of the chosen map among all, and of a side's model. */
  chosen(side) {
    const { values } = this.state;
    const p = this.scene.about.maps.findIndex((one) => one.name === values.map);
    return { p, m: this.scene.index(values[side]), layer: this.scene.about.maps[p] };
  }

  /** An array as it is now: on the way from left to right, or during a training. */
  now(side, kind, film) {
    const { values } = this.state;
    const { arrays } = this.scene;
    const [from, to] = [arrays[kind("left")], arrays[kind("right")]];
    if (side === "left" || !to) return from;
    const frames = values.film === null ? null : arrays[film];
    if (frames) {
      const size = to.length;
      const at = Math.floor(values.film);
      const frame = frames.subarray(at * size, (at + 1) * size);
      const next = frames.subarray((at + 1) * size, (at + 2) * size);
      return mixed(frame, next.length ? next : frame, values.film - at);
    }
    const common = this.chosen(side).layer.common && from?.length === to.length;
    return common ? mixed(from, to, values.t) : to;
  }

  /** @returns {Float32Array} where all images are, two numbers each */
  places(side) {
    const { p, m } = this.chosen("right");
    return this.now(side, (s) => `place ${p} ${this.chosen(s).m}`, `film ${p} ${m}`);
  }

  /** What a side's model answers now. @returns {ArrayLike<number>} */
  answers(side) {
    const { m } = this.chosen(side);
    const frames = this.scene.arrays[`film answers ${m}`];
    const { film } = this.state.values;
    if (side === "left" || film === null || !frames) return this.scene.answers(m);
    const at = Math.round(film) * this.scene.count;
    return frames.subarray(at, at + this.scene.count);
  }

  extent(side) {
    const { p, m } = this.chosen(side);
    const places = this.scene.arrays[`place ${p} ${m}`];
    const low = [Infinity, Infinity];
    const high = [-Infinity, -Infinity];
    for (let n = 0; n < places.length; n++) {
      low[n % 2] = Math.min(low[n % 2], places[n]);
      high[n % 2] = Math.max(high[n % 2], places[n]);
    }
    return { low, high, half: Math.max(high[0] - low[0], high[1] - low[1]) / 2 || 1 };
  }

  /** Show everything: on the same axes, unless one map were a dot on the other's. */
  fit() {
    const [left, right] = [this.extent("left"), this.extent("right")];
    const ratio = right.half / left.half;
    const alike = ratio < BLOWN_UP && ratio > 1 / BLOWN_UP;
    this.state.set({ zoom: null, linked: alike && this.chosen("left").layer.common });
    this.repaint();
  }

  /** Where each map looks. */
  look() {
    const { zoom, linked } = this.state.values;
    const ends = ["left", "right"].map((side) => this.extent(side));
    ["left", "right"].forEach((side, n) => {
      const parts = linked ? ends : [ends[n]];
      const [x, y] = [0, 1].map((axis) => [
        Math.min(...parts.map((part) => part.low[axis])),
        Math.max(...parts.map((part) => part.high[axis])),
      ]);
      const half = (Math.max(x[1] - x[0], y[1] - y[0]) || 1) * 0.54;
      const whole = { x: (x[0] + x[1]) / 2, y: (y[0] + y[1]) / 2, half };
      const [u, v, h] = zoom?.[n] ?? [];
      this.views[side].range = zoom ? { x: u, y: v, half: h } : whole;
    });
  }

  /** Change where maps look: both when their axes are linked. */
  aim(side, change) {
    const zoom = ["left", "right"].map((one) => {
      const range = { ...this.views[one].range };
      if (this.state.values.linked || one === side) change(range);
      return [range.x, range.y, range.half];
    });
    this.state.set({ zoom });
  }

  zoomed(side, factor, [u, v] = [0.5, 0.5]) {
    this.aim(side, (range) => {
      range.x += (2 * u - 1) * range.half * (1 - factor);
      range.y -= (2 * v - 1) * range.half * (1 - factor);
      range.half *= factor;
    });
  }

  /** Screen coordinates of a side's images, or of places on its axes. */
  screen(side, places) {
    const { range, size } = this.views[side];
    const scale = size / (2 * range.half);
    const found = new Float32Array(places.length);
    for (let n = 0; n < places.length; n += 2) {
      found[n] = size / 2 + (places[n] - range.x) * scale;
      found[n + 1] = size / 2 - (places[n + 1] - range.y) * scale;
    }
    return found;
  }

  ink() {
    return this.state.values.dark ? "#e8eaee" : "#1d1f23";
  }

  /** A colour as it is drawn, lighter on dark ground. */
  tone(color) {
    return this.state.values.dark ? between(color, "#ffffff", 0.15) : color;
  }

  /** @returns {(i: number) => string} the colour of an image on a side's map */
  colors(side) {
    const { values } = this.state;
    const { about, labels } = this.scene;
    const answers = this.answers(side);
    const tones = about.colors.map((color) => this.tone(color));
    const [right, wrong] = [this.tone(RIGHT), this.tone(WRONG)];
    if (values.color === "right or wrong") return (i) => (answers[i] === labels[i] ? right : wrong);
    if (values.color !== "distance moved")
      return (i) => tones[(values.color === "class" ? labels : answers)[i]];
    const { moved, far } = distances(this.scene, values);
    const steps = about.viridis.length - 1;
    return (i) => about.viridis[moved ? Math.round(steps * Math.min(1, moved[i] / (far || 1))) : 0];
  }

  repaint() {
    if (!this.views.left.top.clientWidth) return;
    const { values } = this.state;
    this.visible = visible(this.scene, values);
    this.selected = new Uint8Array(this.scene.count);
    for (const i of values.selected) this.selected[i] = 1;
    this.look();
    for (const side of ["left", "right"]) this.paint(side);
    this.overlay();
  }

  paint(side) {
    const view = this.views[side];
    view.size = view.top.clientWidth;
    const context = sized(view.base, view.size, view.size);
    this.shade(side, context);
    view.xy = this.screen(side, this.places(side));
    const some = this.state.values.selected.length > 0;
    const radius = this.scene.images > 4000 ? 1.7 : this.scene.images > 1200 ? 2.4 : 2.9;
    const color = this.colors(side);
    const plain = this.state.values.color === "class";
    const dots = new Dots(view.size);
    for (const pass of some ? [0, 1] : [1]) {
      const alpha = pass ? (some ? 0.95 : 0.78) : 0.13;
      for (let i = 0; i < this.scene.count; i++) {
        if (!this.visible[i] || (some && this.selected[i] !== pass)) continue;
        const cross = i >= this.scene.images;
        const ink = cross && plain ? this.ink() : color(i);
        dots.add(view.xy[2 * i], view.xy[2 * i + 1], ink, alpha, radius, cross);
      }
    }
    dots.draw(context);
    if (side === "right" && some && this.chosen(side).layer.common) this.ways(context);
    context.globalAlpha = 1;
  }

  /** Lines from the places that selected images have under the left model. */
  ways(context) {
    const from = this.screen("right", this.places("left"));
    const { xy } = this.views.right;
    const { labels, images, about } = this.scene;
    const ways = new Map();
    for (const i of this.state.values.selected) {
      if (!this.visible[i]) continue;
      const color = i < images ? this.tone(about.colors[labels[i]]) : this.ink();
      if (!ways.has(color)) ways.set(color, new Path2D());
      ways.get(color).moveTo(from[2 * i], from[2 * i + 1]);
      ways.get(color).lineTo(xy[2 * i], xy[2 * i + 1]);
    }
    context.globalAlpha = this.state.values.selected.length > 300 ? 0.18 : 0.4;
    context.lineWidth = 0.8;
    for (const [color, way] of ways) {
      context.strokeStyle = color;
      context.stroke(way);
    }
  }

  /** Behind an exact map of two features: the head's regions. */
  shade(side, context) {
    const { p, m, layer } = this.chosen("right");
    if (layer.name !== "exact") return;
    const weight = this.now(side, (s) => `head ${this.chosen(s).m}`, `film head ${m}`);
    const { range, size } = this.views[side];
    const cells = 150;
    const unit = (2 * range.half) / cells;
    const tones = this.scene.about.colors.map((color) => rgb(color));
    const picture = new ImageData(cells, cells);
    for (let q = 0; q < cells * cells; q++) {
      const x = range.x + ((q % cells) + 0.5 - cells / 2) * unit;
      const y = range.y - (Math.floor(q / cells) + 0.5 - cells / 2) * unit;
      let [best, top] = [0, -Infinity];
      for (let k = 0; k < tones.length; k++) {
        const score = weight[3 * k] * x + weight[3 * k + 1] * y + weight[3 * k + 2];
        if (score > top) [best, top] = [k, score];
      }
      picture.data.set(tones[best], 4 * q);
      picture.data[4 * q + 3] = this.state.values.dark ? 52 : 40;
    }
    const small = new OffscreenCanvas(cells, cells);
    small.getContext("2d").putImageData(picture, 0, 0);
    context.drawImage(small, 0, 0, size, size);
  }

  /** What is pointed at, the corners of the plane and the lasso. */
  overlay() {
    const { values } = this.state;
    for (const side of ["left", "right"]) {
      const view = this.views[side];
      if (!view.xy) continue;
      const context = sized(view.top, view.size, view.size);
      const at = (i) => [view.xy[2 * i], view.xy[2 * i + 1]];
      const ring = (i, radius) => {
        context.beginPath();
        context.arc(...at(i), radius, 0, 7);
        context.stroke();
      };
      context.strokeStyle = context.fillStyle = this.ink();
      context.font = "600 11px system-ui, sans-serif";
      context.lineWidth = 1.3;
      values.corners.forEach((i, n) => {
        ring(i, 8);
        context.fillText("ABC"[n], at(i)[0] + 9, at(i)[1] - 7);
      });
      const focus = values.hover >= 0 ? values.hover : values.pin;
      if (focus >= 0) {
        context.lineWidth = 2;
        ring(focus, 6);
        context.lineWidth = 0.8;
        for (const n of this.scene.near(this.scene.index(values[side]), focus)) {
          context.beginPath();
          context.moveTo(...at(focus));
          context.lineTo(...at(n));
          context.stroke();
        }
      }
      if (!view.lasso) continue;
      const path = new Path2D();
      for (const point of view.lasso) path.lineTo(...point);
      path.closePath();
      context.lineWidth = 1.2;
      context.stroke(path);
      context.globalAlpha = 0.08;
      context.fill(path);
      context.globalAlpha = 1;
    }
  }

  /** The visible image nearest to a point of the screen, or -1. */
  nearest(side, x, y) {
    const { xy } = this.views[side];
    let [best, least] = [-1, REACH ** 2];
    for (let i = 0; i < this.scene.count; i++) {
      const apart = (xy[2 * i] - x) ** 2 + (xy[2 * i + 1] - y) ** 2;
      if (apart < least && this.visible[i]) [best, least] = [i, apart];
    }
    return best;
  }

  /** Rows of the visible images in a polygon of the screen. @returns {number[]} */
  enclosed(side, path) {
    const { xy } = this.views[side];
    const rows = Array.from({ length: this.scene.count }, (_, i) => i);
    return rows.filter((i) => this.visible[i] && inside(xy[2 * i], xy[2 * i + 1], path));
  }
}
