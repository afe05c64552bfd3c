/** Planes through three images: what two models say of every mix of them. */
import {
  Scene,
  State,
  button,
  joined,
  make,
  rgb,
  short,
  sized,
  slider,
  softmax,
  spot,
} from "./data.js";
import { anyThree, blended, cells, differing } from "./mixes.js";
import { bars } from "./point.js";

const SIDES = [12, 24, 48, 96]; // cells a side that a kernel is asked for, in turn
const FINE = 240; // cells a side in feature space, where a head is all there is to compute
const STEPS = 65; // points along an edge there
const EDGES = ["A–B", "B–C", "C–A"];
const CORNERS = [[0.11, 0.89], [0.89, 0.89], [0.5, 0.12]]; // prettier-ignore

/** The section on planes; `node` is to be shown. */
export class Planes {
  /** @param {Scene} scene @param {State} state @param {Object} model the kernel's, or a stand-in */
  constructor(scene, state, model) {
    Object.assign(this, { scene, state, model, answered: new Map(), stages: {} });
    this.live = model.live ?? Boolean(model.get("live"));
    this.note = make("small", { role: "status" });
    this.slots = make("div.group");
    this.info = make("div.side");
    this.head = make("div");
    this.chart = make("canvas.chart", { role: "img" });
    this.chances = make("div.probabilities");
    const along = { min: 0, max: 1, step: 0.005, className: "along" };
    const oninput = () => state.set({ along: +this.slider.value, mix: null });
    this.slider = slider("along the edge", { ...along, oninput });
    const kept = make("div.group");
    if (scene.about.planes.length)
      kept.append("kept", ...scene.about.planes.map((p) => this.kept(p)));
    const others = button("three others", "three images of different classes, at random", () =>
      state.set({ corners: anyThree(scene) }),
    );
    const parts = [this.slots, others, kept, this.spaces(), this.note];
    const panels = ["left", "right", "differ"].map((key) => this.panel(key));
    this.node = make(
      "section",
      { "aria-label": "planes" },
      make("div.bar", make("h2", "Planes"), ...parts),
      make("div.planes", ...panels, this.info),
    );
    const edges = EDGES.map((name, n) => {
      const node = button(name, `along the edge ${name}`, () => state.set({ edge: n }));
      state.now("edge", () => node.setAttribute("aria-pressed", state.values.edge === n));
      return node;
    });
    this.info.append(this.head, joined("edge", ...edges), this.chart, this.slider, this.chances);
    model.on("change:plane", () => this.answer(model.get("plane")));
    state.on("left right corners space dark size", () => this.show());
    state.on("mix edge along", () => this.look());
  }

  kept(plane) {
    const put = () => this.state.set({ corners: plane.corners, space: "pixels" });
    const node = button("", `plane through ${plane.corners.join(", ")}, kept in pixel space`, put);
    node.className = "kept";
    node.append(...plane.corners.map((i) => this.scene.picture(i, 20)));
    return node;
  }

  spaces() {
    const able = this.live || this.scene.about.planes.length > 0;
    const nodes = ["features", "pixels"].map((space) => {
      const told = space === "features" ? "mixes of features" : "mixes of pixels";
      const node = button(space, told, () => this.state.set({ space }));
      node.disabled = space === "pixels" && !able;
      if (node.disabled) node.title = "pixel space needs a kernel, or planes that were kept";
      const show = () => node.setAttribute("aria-pressed", this.state.values.space === space);
      this.state.now("space", show);
      return node;
    });
    return joined("space", ...nodes);
  }

  panel(key) {
    const base = make("canvas", { "aria-hidden": "true" });
    const top = make("canvas", { role: "img" });
    const head = make("div.bar");
    this.stages[key] = { base, top, head };
    top.onpointermove = top.onpointerdown = (event) => {
      const { width, height } = this.stages[key];
      const [x, y] = spot(event, top).map((v, n) => v / [width, height][n]);
      const [[ax, ay], [bx], [, cy]] = CORNERS;
      const c = (y - ay) / (cy - ay);
      const b = (x - ax - c * (CORNERS[2][0] - ax)) / (bx - ax);
      this.state.set({ mix: b < 0 || c < 0 || b + c > 1 ? null : [1 - b - c, b, c] });
    };
    top.onpointerleave = () => this.state.set({ mix: null });
    return make("div.panel", head, make("div.stage", base, top));
  }

  /** Both models' cells and edges in the chosen space; null where a kernel must answer. */
  find() {
    const { left, right, corners, space } = this.state.values;
    const names = [left, right];
    if (space === "features") {
      const scores = names.map((name) =>
        corners.map((i) => this.scene.logits(this.scene.index(name), i)),
      );
      const chance = (n, edge, s) => {
        const weights = this.along(edge, s / (STEPS - 1));
        return softmax(blended(scores[n], weights));
      };
      return { side: FINE, steps: STEPS, both: scores.map((z) => cells(z, FINE)), chance, scores };
    }
    const parts = names.map((name) => this.answered.get(`${name} ${corners}`) ?? this.stored(name));
    if (parts.some((part) => !part)) return null;
    const side = Math.min(...parts.map((part) => part.side));
    const both = parts.map((part) => part.levels[side]);
    if (both.some((level) => !level)) return null;
    const classes = this.scene.about.classes.length;
    const steps = parts[0].edges.length / (3 * classes);
    const chance = (n, edge, s) => {
      const start = (edge * steps + s) * classes;
      return [...parts[n].edges.subarray(start, start + classes)];
    };
    return { side, steps, both, chance, seconds: Math.max(...parts.map((p) => p.seconds ?? 0)) };
  }

  /** A model's part of a plane that was kept. */
  stored(name) {
    const { corners } = this.state.values;
    const i = this.scene.about.planes.findIndex((p) => `${p.corners}` === `${corners}`);
    if (i < 0) return null;
    const m = this.scene.index(name);
    const { side } = this.scene.about.planes[i];
    const { arrays } = this.scene;
    return { side, levels: { [side]: arrays[`plane ${i} ${m}`] }, edges: arrays[`edge ${i} ${m}`] };
  }

  /** Ask for one level, so that what is no longer wanted is not computed. */
  ask(side) {
    const { left, right, corners } = this.state.values;
    this.model.set("wanted", {
      corners: [...corners],
      models: [left, right],
      side,
      at: Date.now(),
    });
    this.model.save_changes();
  }

  /** Take a level from the kernel, and ask for the next if it is still wanted. */
  answer(plane) {
    if (plane.error) this.note.textContent = plane.error;
    if (plane.error || !plane.models) return;
    plane.models.forEach((name, n) => {
      const key = `${name} ${plane.corners}`;
      const levels = this.answered.get(key)?.levels ?? {};
      const [given, edges] = [plane.cells[n], plane.edges[n]].map((view) =>
        view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength),
      );
      levels[plane.side] = new Uint16Array(given);
      const side = Math.max(...Object.keys(levels).map(Number));
      const part = { side, levels, edges: new Float32Array(edges), seconds: plane.seconds };
      this.answered.set(key, part);
    });
    const { left, right, corners, space } = this.state.values;
    const wanted = `${[left, right]} ${corners}` === `${plane.models} ${plane.corners}`;
    if (wanted && space === "pixels") this.show();
  }

  show() {
    const { corners, space } = this.state.values;
    const slot = (i, n) => {
      const title = `corner ${"ABC"[n]}: ${this.scene.title(i)}; click to look at it`;
      const node = button("", title, () => this.state.set({ pin: i }));
      node.className = "corner";
      node.append(this.scene.picture(i, 22), "ABC"[n]);
      return node;
    };
    this.slots.replaceChildren("corners", ...corners.map(slot));
    if (!this.stages.left.top.clientWidth) return;
    this.found = this.find();
    if (space === "features") this.note.textContent = "Mixes of features: the head alone, exact.";
    else if (!this.found && !this.live)
      this.note.textContent = "Not kept, and no kernel is here: choose a kept plane, or features.";
    else if (!this.found) {
      this.note.textContent = "Asking the kernel …";
      this.ask(SIDES[0]);
    } else {
      const { side, seconds } = this.found;
      const next = this.live && !this.stored(this.state.values.left) && SIDES.find((s) => s > side);
      const time = seconds ? `, ${short(seconds)} s` : "";
      this.note.textContent = `Mixes of pixels: ${side} cells a side${time}${next ? ", finer to come" : ""}.`;
      if (next) this.ask(next);
    }
    this.paint();
    this.look();
  }

  paint() {
    const { left, right, dark } = this.state.values;
    const tones = this.scene.about.colors.map((color) => rgb(color));
    const { side, both } = this.found ?? {};
    const share = this.found ? differing(both[0], both[1], side) : null;
    const told = share === null ? "" : `on ${(100 * share).toFixed(1)} % of mixes`;
    const titles = { left: [left], right: [right], differ: ["Differ", told] };
    for (const [key, stage] of Object.entries(this.stages)) {
      const [name, more = ""] = titles[key];
      stage.head.replaceChildren(make("h3", name), make("small", more));
      stage.top.setAttribute("aria-label", `plane of ${name} ${more}`);
      [stage.width, stage.height] = [stage.top.clientWidth, stage.top.clientHeight];
      const context = sized(stage.base, stage.width, stage.height);
      if (!this.found) continue;
      const picture = new ImageData(side, side);
      for (let v = 0; v < side; v++)
        for (let u = 0; u + v < side; u++) {
          const q = v * side + u;
          const faint = key === "differ" && both[0][q] === both[1][q];
          picture.data.set(tones[both[key === "left" ? 0 : 1][q]], 4 * q);
          picture.data[4 * q + 3] = faint ? (dark ? 45 : 32) : key === "differ" ? 240 : 165;
        }
      const small = new OffscreenCanvas(side, side);
      small.getContext("2d").putImageData(picture, 0, 0);
      const [a, b, c] = this.corners(stage);
      context.clip(this.triangle(stage));
      context.imageSmoothingEnabled = false;
      context.transform(b[0] - a[0], b[1] - a[1], c[0] - a[0], c[1] - a[1], ...a);
      context.drawImage(small, 0, 0, 1, 1);
    }
  }

  corners = ({ width, height }) => CORNERS.map(([x, y]) => [x * width, y * height]);

  triangle(stage) {
    const path = new Path2D();
    for (const corner of this.corners(stage)) path.lineTo(...corner);
    path.closePath();
    return path;
  }

  /** Weights of the corners at a share of an edge. */
  along(edge, share) {
    const weights = [0, 0, 0];
    weights[edge] = 1 - share;
    weights[(edge + 1) % 3] += share;
    return weights;
  }

  /** What can change while a pointer or a slider moves. */
  look() {
    const { values } = this.state;
    const weights = values.mix ?? this.along(values.edge, values.along);
    const ink = values.dark ? "#e8eaee" : "#1d1f23";
    for (const stage of Object.values(this.stages)) {
      if (!stage.width) continue;
      const context = sized(stage.top, stage.width, stage.height);
      const corners = this.corners(stage);
      context.strokeStyle = context.fillStyle = ink;
      context.stroke(this.triangle(stage));
      context.lineWidth = 2.5;
      context.beginPath();
      context.moveTo(...corners[values.edge]);
      context.lineTo(...corners[(values.edge + 1) % 3]);
      context.stroke();
      context.font = "600 12px system-ui, sans-serif";
      values.corners.forEach((i, n) => {
        const [x, y] = corners[n];
        this.scene.draw(context, i, x - 14, y - 14, 28, 28);
        context.lineWidth = 1;
        context.strokeRect(x - 14.5, y - 14.5, 29, 29);
        context.fillText("ABC"[n], x + (n === 1 ? -30 : 20), y + (n < 2 ? 13 : -2));
      });
      const [x, y] = [0, 1].map((n) => corners.reduce((sum, p, c) => sum + weights[c] * p[n], 0));
      for (const [radius, color] of [
        [6.5, ink],
        [5, values.dark ? "#15171c" : "#ffffff"],
      ]) {
        // prettier-ignore
        context.beginPath();
        context.arc(x, y, radius, 0, 7);
        context.strokeStyle = color;
        context.lineWidth = 1.6;
        context.stroke();
      }
    }
    this.tell(weights);
  }

  tell(weights) {
    const { scene, state, found } = this;
    const { left, right, edge, mix, space } = state.values;
    this.info.hidden = !found;
    if (!found) return;
    const { side, both, scores, chance, steps } = found;
    const u = Math.min(side - 1, Math.floor(weights[1] * side));
    const v = Math.min(side - 1 - u, Math.floor(weights[2] * side));
    const said = both.map((level) => scene.about.classes[level[v * side + u]]);
    const told = make("div", `${left}: `, make("b", said[0]), make("br"));
    told.append(`${right}: `, make("b", said[1]));
    if (said[0] !== said[1]) told.append(make("div.alarm", "they differ"));
    const mixed = weights.map((w, n) => `${w.toFixed(2)} ${"ABC"[n]}`).join(" + ");
    told.append(make("div.soft", mixed));
    const head = make("div.about");
    if (space === "pixels") head.append(this.blend(weights));
    head.append(told);
    this.head.replaceChildren(head);
    this.slider.value = state.values.along;
    this.chart.setAttribute("aria-label", `probabilities along the edge ${EDGES[edge]}`);
    this.plot(chance, steps, edge);
    const names = left === right ? [left] : [left, right];
    const at = (n) =>
      scores
        ? softmax(blended(scores[n], weights))
        : chance(n, edge, Math.round(state.values.along * (steps - 1)));
    const known = scores || !mix; // in pixel space probabilities are known along edges
    this.chances.replaceChildren(
      ...(known ? names.flatMap((name, n) => bars(scene, name, at(n))) : []),
    );
  }

  /** The corners' mix as an image. */
  blend(weights) {
    const { corners } = this.state.values;
    const [height, width] = this.scene.about.shape;
    const canvas = make("canvas.picture", { width, height });
    const scale = 96 / Math.max(height, width);
    canvas.style.cssText = `width:${width * scale}px;height:${height * scale}px`;
    const context = canvas.getContext("2d");
    const picture = context.createImageData(width, height);
    if (`${corners}` !== this.blending) this.images = corners.map((i) => this.scene.pixels(i));
    this.blending = `${corners}`;
    for (let p = 0; p < picture.data.length; p++)
      picture.data[p] = weights.reduce((sum, w, n) => sum + w * this.images[n][p], 0);
    context.putImageData(picture, 0, 0);
    return canvas;
  }

  /** Probabilities along the edge: the left model's lines are whole, the right's dashed. */
  plot(chance, steps, edge) {
    const { dark, along } = this.state.values;
    const [width, height] = [this.chart.clientWidth || 240, 128];
    const context = sized(this.chart, width, height);
    context.strokeStyle = dark ? "#363b45" : "#dcdfe4";
    context.strokeRect(0.5, 0.5, width - 1, height - 1);
    const place = (s) => 4 + (s / (steps - 1)) * (width - 8);
    [[], [4, 3]].forEach((dash, n) => {
      const rows = Array.from({ length: steps }, (_, s) => chance(n, edge, s));
      context.setLineDash(dash);
      context.lineWidth = 1.7;
      this.scene.about.colors.forEach((color, k) => {
        if (rows.every((row) => row[k] < 0.05)) return;
        context.strokeStyle = color;
        context.beginPath();
        rows.forEach((row, s) => context.lineTo(place(s), height - 5 - row[k] * (height - 10)));
        context.stroke();
      });
    });
    context.setLineDash([]);
    context.lineWidth = 1;
    context.strokeStyle = dark ? "#e8eaee" : "#1d1f23";
    context.beginPath();
    context.moveTo(place(along * (steps - 1)), 1);
    context.lineTo(place(along * (steps - 1)), height - 1);
    context.stroke();
  }
}
