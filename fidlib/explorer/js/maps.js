/** Two maps of the same images: where they are, what is visible, and how it is drawn. */
import { apart, button, make, point, raster, rgb } from "./dom.js";
import { listen } from "./gestures.js";
import { region } from "./mixes.js";

export const [RIGHT, WRONG] = ["#3f90da", "#e76300"];
const SIDES = ["left", "right"];
const PAINTED = "left right map color show hidden t film selected linked zoom size";
const BLOWN_UP = 5; // times as wide as the other map: on shared axes that is a dot
const REACH = 14; // CSS pixels around a point that belong to it
const CELLS = 150; // a side, of the regions behind a map
const [DOT, CROSS] = ["M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0z", "M-1-1 1 1M1-1-1 1"];

/** The square that holds all places of some arrays: [x, y, half its width]. */
function around(...arrays) {
  const [x, y] = [0, 1].map((axis) => {
    let [low, high] = [Infinity, -Infinity];
    for (const places of arrays)
      for (let n = axis; n < places.length; n += 2) {
        low = Math.min(low, places[n]);
        high = Math.max(high, places[n]);
      }
    return { middle: (low + high) / 2, half: (high - low) / 2 };
  });
  return [x.middle, y.middle, 1.08 * Math.max(x.half, y.half) || 1];
}

/** A dot, or a cross, as a picture: stamped thousands of times in few ms. */
function stamp(color, radius, cross) {
  const side = Math.ceil(2 * radius) + 4;
  const context = new OffscreenCanvas(side, side).getContext("2d");
  context.setTransform(radius, 0, 0, radius, side / 2, side / 2);
  context.lineWidth = 0.55;
  context.fillStyle = context.strokeStyle = color;
  if (cross) context.stroke(new Path2D(CROSS));
  else context.fill(new Path2D(DOT));
  return context.canvas.transferToImageBitmap();
}

/** Rows that pass the filters. @param {Scene} scene @returns {number[]} */
function visible(scene, values) {
  const { labels, images, count } = scene;
  const { before, after, moved, far } = scene.compare(values);
  const hidden = new Set(values.hidden);
  const tests = {
    all: () => true,
    "answer changed": (i) => before[i] !== after[i],
    wrong: (i) => after[i] !== labels[i],
    triggers: (i) => i >= images,
    "moved most": (i) => i < images && moved?.[i] > 0 && moved[i] >= far,
  };
  const passes = tests[values.show];
  const kept = (i) => !hidden.has(i < images ? labels[i] : "triggers") && passes(i);
  return [...Array(count).keys()].filter(kept);
}

/** The two maps; a panel for each. */
export class Maps {
  /** @param {Scene} scene @param {State} state @param {Object} heads left and right */
  constructor(scene, state, heads) {
    Object.assign(this, { scene, state, views: {} });
    this.panels = SIDES.map((side) => this.panel(side, heads[side]));
    state.on("left right map", () => this.fit());
    state.on(PAINTED, () => this.repaint());
    state.on("hover pin corners", () => this.overlay());
  }

  panel(side, head) {
    const title = `Map of the ${side} model. Arrow keys go from image to image, Enter keeps one, space selects it, plus and minus zoom, Escape clears the selection.`;
    const base = make("canvas", { "aria-hidden": "true" });
    const top = make("svg", { tabindex: 0, role: "application", "aria-label": title });
    const zoom = make(
      "div.zoom.joined",
      button("+", "zoom in", () => this.aim(side, 0.7)),
      button("−", "zoom out", () => this.aim(side, 1 / 0.7)),
      button("⤢", "show all", () => this.fit()),
    );
    this.views[side] = { base, top, lasso: null };
    listen(this, side);
    return make("div.panel", head, make("div.stage", base, top, zoom));
  }

  /** Arrays of a kind of both models, and of the right one's training. */
  arrays(kind) {
    const { arrays, about } = this.scene;
    const [left, right] = this.scene.pair(this.state.values);
    const p = about.maps.indexOf(this.scene.map(this.state.values));
    const stem = kind === "place" ? `place ${p}` : kind;
    return [`${stem} ${left}`, `${stem} ${right}`, `film ${stem} ${right}`].map((n) => arrays[n]);
  }

  places = () => this.arrays("place").slice(0, 2);

  /** One of a side as it is now: on the way from left to right, or in a training. */
  now(side, kind) {
    const { film, t } = this.state.values;
    const [from, to, frames] = this.arrays(kind);
    if (side === "left") return from;
    const mixed = (a, b, share) => (share ? a.map((v, n) => v + share * (b[n] - v)) : a);
    if (frames && film !== null) {
      const at = Math.min(film, frames.length / to.length - 1);
      const frame = (n) => frames.subarray(n * to.length, (n + 1) * to.length);
      if (kind === "answers") return frame(Math.round(at));
      return mixed(frame(Math.floor(at)), frame(Math.ceil(at)), at % 1);
    }
    const whole = t === 1 || kind === "answers" || !this.scene.map(this.state.values).common;
    return whole ? to : mixed(from, to, t);
  }

  /** Whether both maps have the same axes: as chosen, or unless one were a dot on them. */
  get linked() {
    if (!this.scene.map(this.state.values).common) return false;
    const [left, right] = this.places().map((one) => around(one)[2]);
    const alike = right / left < BLOWN_UP && left / right < BLOWN_UP;
    return this.state.values.linked ?? alike;
  }

  fit() {
    this.state.set({ zoom: null, linked: null });
  }

  /** Zoom around a place and move, in shares of a map's sides: both if axes are linked. */
  aim(side, factor, [u, v] = [0.5, 0.5], [dx, dy] = [0, 0]) {
    const { linked } = this;
    const zoom = SIDES.map((one) => {
      const [x, y, half] = this.views[one].range;
      if (!linked && one !== side) return [x, y, half];
      const [across, up] = [(u - 0.5) * (1 - factor) - dx, (0.5 - v) * (1 - factor) + dy];
      return [x + 2 * half * across, y + 2 * half * up, half * factor];
    });
    this.state.set({ zoom });
  }

  /** Places on a side's axes as CSS pixels. */
  screen(side, places) {
    const { range, size } = this.views[side];
    const scale = size / (2 * range[2]);
    return places.map((v, n) => size / 2 + (v - range[n % 2]) * (n % 2 ? -scale : scale));
  }

  /** @returns {(i: number) => string} the colour of an image on a side's map */
  colors(side) {
    const { values } = this.state;
    const { about, labels } = this.scene;
    const answers = this.now(side, "answers");
    if (values.color === "class") return (i) => about.colors[labels[i]];
    if (values.color === "answer") return (i) => about.colors[answers[i]];
    if (values.color === "right or wrong") return (i) => (answers[i] === labels[i] ? RIGHT : WRONG);
    const { moved, far } = this.scene.compare(values);
    const share = (i) => Math.min(1, (moved?.[i] ?? 0) / far);
    return (i) => about.viridis[Math.round((about.viridis.length - 1) * share(i))];
  }

  repaint() {
    if (!this.views.left.top.clientWidth) return;
    const { linked } = this;
    const places = this.places();
    this.rows = visible(this.scene, this.state.values);
    SIDES.forEach((side, n) => {
      const whole = around(...(linked ? places : [places[n]]));
      this.views[side].range = this.state.values.zoom?.[n] ?? whole;
      this.paint(side);
    });
    this.overlay();
  }

  paint(side) {
    const { scene, views } = this;
    const { values } = this.state;
    const view = views[side];
    const size = (view.size = view.top.clientWidth);
    const ratio = window.devicePixelRatio || 1;
    view.base.width = view.base.height = Math.round(size * ratio);
    view.xy = this.screen(side, this.now(side, "place"));
    const context = view.base.getContext("2d");
    this.shade(side, context);
    const selected = new Set(values.selected);
    const some = selected.size > 0;
    const radius = scene.images > 4000 ? 1.7 : scene.images > 1200 ? 2.4 : 2.9;
    const color = this.colors(side);
    const { color: ink } = getComputedStyle(view.top);
    const stamps = new Map();
    const [behind, front] = [false, true].map((v) =>
      this.rows.filter((i) => selected.has(i) === v),
    );
    for (const i of [...behind, ...front]) {
      const cross = i >= scene.images;
      const tone = cross && values.color === "class" ? ink : color(i);
      const key = tone + cross;
      if (!stamps.has(key)) stamps.set(key, stamp(tone, radius * ratio, cross));
      const picture = stamps.get(key);
      const [x, y] = point(view.xy, i).map((v) => v * ratio - picture.width / 2);
      context.globalAlpha = selected.has(i) ? 0.95 : some ? 0.13 : 0.78;
      context.drawImage(picture, x, y);
    }
    context.scale(ratio, ratio);
    if (side === "right" && some && scene.map(values).common) this.ways(context, selected, ink);
  }

  /** Lines from the places that selected images have under the left model. */
  ways(context, selected, ink) {
    const { labels, images, about } = this.scene;
    const from = this.screen("right", this.now("left", "place"));
    context.globalAlpha = selected.size > 300 ? 0.18 : 0.4;
    context.lineWidth = 0.8;
    for (const i of this.rows.filter((row) => selected.has(row))) {
      context.strokeStyle = i < images ? about.colors[labels[i]] : ink;
      context.beginPath();
      context.moveTo(...point(from, i));
      context.lineTo(...point(this.views.right.xy, i));
      context.stroke();
    }
  }

  /** Behind an exact map of two features: the head's regions. */
  shade(side, context) {
    if (this.scene.map(this.state.values).name !== "exact") return;
    const head = this.now(side, "head");
    const [x, y, half] = this.views[side].range;
    const tones = this.scene.about.colors.map(rgb);
    const unit = (2 * half) / CELLS;
    const picture = raster(CELLS, (u, v) => {
      const k = region(head, x - half + (u + 0.5) * unit, y + half - (v + 0.5) * unit);
      return [...tones[k], 44];
    });
    context.drawImage(picture, 0, 0, context.canvas.width, context.canvas.width);
  }

  /** What is pointed at, the corners of the plane and the lasso. */
  overlay() {
    const { corners, hover, pin } = this.state.values;
    const focus = hover >= 0 ? hover : pin;
    const ring = ([cx, cy], r) => make("circle", { cx, cy, r });
    SIDES.forEach((side, n) => {
      const { top, xy, lasso } = this.views[side];
      if (!xy) return;
      const parts = corners.flatMap((i, c) => {
        const [x, y] = point(xy, i);
        return [ring([x, y], 8), make("text", "ABC"[c], { x: x + 9, y: y - 7 })];
      });
      if (focus >= 0) {
        const m = this.scene.pair(this.state.values)[n];
        const near = [...this.scene.row(`neighbors ${m}`, focus)];
        const d = near.map((i) => `M${point(xy, focus)}L${point(xy, i)}`).join("");
        parts.push(ring(point(xy, focus), 6), make("path", { d }));
      }
      if (lasso) parts.push(make("polygon", { points: lasso.join(" ") }));
      top.replaceChildren(...parts);
    });
  }

  /** The visible image nearest to a point of the screen, or -1. */
  nearest(side, at) {
    let [best, least] = [-1, REACH];
    for (const i of this.rows) {
      const far = apart(point(this.views[side].xy, i), at);
      if (far < least) [best, least] = [i, far];
    }
    return best;
  }
}
