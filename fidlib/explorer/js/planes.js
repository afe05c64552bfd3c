/** Planes through three images: what two models say of every mix of them. */
import { button, make, put, raster, rgb, slider, spot, toggles } from "./dom.js";
import { blended, cells, differing, softmax, three } from "./mixes.js";
import { bars, images } from "./point.js";

const LEVELS = [12, 24, 48, 96]; // cells a side that a kernel is asked for, in turn
const FINE = 240; // cells a side in feature space, where a head is all there is to compute
const STEPS = 65; // points along an edge there
const EDGES = ["A–B", "B–C", "C–A"];
const [LEFT, WIDE, LOW, HIGH] = [11, 78, 89, 77]; // of the triangle, in hundredths of a picture
const PIXELS = 480; // a side of a picture, whatever its size on the screen

/** Where a mix of the corners is on a picture, in hundredths of its sides. */
const place = ([, b, c]) => [LEFT + WIDE * (b + c / 2), LOW - HIGH * c];
const CORNERS = [0, 1, 2].map((n) => place(along(n, 0)));

/** The mix at a place; null outside the triangle. */
function mixture([x, y]) {
  const c = (LOW - y) / HIGH;
  const b = (x - LEFT) / WIDE - c / 2;
  return Math.min(b, c, 1 - b - c) < 0 ? null : [1 - b - c, b, c];
}

/** Weights of the corners at a share of an edge. */
function along(edge, share) {
  const weights = [0, 0, 0];
  weights[edge] = 1 - share;
  weights[(edge + 1) % 3] += share;
  return weights;
}

/** The section on planes; `node` is to be shown. */
export class Planes {
  /** @param {Scene} scene @param {State} state @param {Object} model the kernel's, or a stand-in */
  constructor(scene, state, model) {
    const { planes } = scene.about;
    Object.assign(this, { scene, state, model, live: model.get("live"), pixels: new Map() });
    planes.forEach(({ corners, side }, i) =>
      scene.names.forEach((name, m) => {
        const [level, edges] = ["plane", "edge"].map((kind) => scene.arrays[`${kind} ${i} ${m}`]);
        this.pixels.set(`${name} ${corners}`, { side, level, edges });
      }),
    );
    this.note = make("small", { role: "status" });
    this.slots = make("div.group");
    this.stages = [0, 1, 2].map(() => this.stage());
    const kept = planes.map(({ corners }) => {
      const title = `plane through ${corners.join(", ")}, kept in pixel space`;
      return images(scene, corners, 20, title, () => state.set({ corners, space: "pixels" }));
    });
    const others = button("three others", "three images of different classes, at random", () => {
      const draws = Array.from({ length: 200 }, () => Math.floor(Math.random() * scene.images));
      state.set({ corners: three(draws, scene.labels) });
    });
    const spaces = ["features", "pixels"].map((space) => [space, space, `mixes of ${space}`]);
    this.node = make(
      "section",
      { "aria-label": "planes" },
      make("div.bar", make("h2", "Planes"), this.slots, others),
      make("div.bar", toggles(state, "space", "space", spaces), ...kept, this.note),
      make("div.planes", ...this.stages.map((stage) => stage.node), this.side()),
    );
    model.on("change:plane", () => this.answer(model.get("plane")));
    state.now("left right corners space", () => this.show());
    state.on("mix edge along", () => this.look());
    state.on("edge along", () => this.plot());
  }

  /** A picture of the plane, with what moves on it above. */
  stage() {
    const canvas = make("canvas", { width: PIXELS, height: PIXELS });
    const [head, edge, dot] = [make("div.bar"), make("line.edge"), make("circle", { r: 2 })];
    const corners = [..."abc"].map((letter) => make(`div.corner.${letter}`));
    const triangle = make("polygon", { points: CORNERS.join(" ") });
    const top = make("svg", { viewBox: "0 0 100 100", role: "img" }, triangle, edge, dot);
    top.onpointermove = top.onpointerdown = (event) => {
      this.state.set({ mix: mixture(spot(event, top, 100)) });
    };
    top.onpointerleave = () => this.state.set({ mix: null });
    const node = make("div.panel", head, make("div.stage", canvas, top, ...corners));
    return { node, head, top, edge, dot, corners, context: canvas.getContext("2d") };
  }

  /** What is said of a mix, and probabilities along an edge. */
  side() {
    const title = "probabilities along the edge";
    const options = EDGES.map((name, n) => [n, name, `along the edge ${name}`]);
    const edges = toggles(this.state, "edge", "edge", options);
    const oninput = () => this.state.set({ along: +this.slider.value, mix: null });
    const chart = { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" };
    [this.text, this.chances] = [make("div"), make("div")];
    this.chart = make("svg.chart", { ...chart, "aria-label": title });
    this.slider = slider("along the edge", { max: 1, step: 0.005, oninput });
    return (this.info = make("div.side", this.text, edges, this.chart, this.slider, this.chances));
  }

  /** Both models' cells and probabilities in the chosen space; null where nothing is known. */
  find() {
    const { left, right, corners, space } = this.state.values;
    if (space === "features") {
      const scores = this.scene
        .pair(this.state.values)
        .map((m) => corners.map((i) => this.scene.row(`logits ${m}`, i)));
      const chance = (n, weights) => softmax(blended(scores[n], weights));
      return { side: FINE, steps: STEPS, both: scores.map((z) => cells(z, FINE)), chance };
    }
    const parts = [left, right].map((name) => this.pixels.get(`${name} ${corners}`));
    if (!parts[0] || parts[0].side !== parts[1]?.side) return null;
    const classes = this.scene.about.classes.length;
    const steps = parts[0].edges.length / (3 * classes);
    const chance = (n, weights) => {
      const edge = [0, 1, 2].find((e) => weights[(e + 2) % 3] === 0); // known on edges alone
      const start = (edge * steps + Math.round(weights[(edge + 1) % 3] * (steps - 1))) * classes;
      return edge === undefined ? null : [...parts[n].edges.slice(start, start + classes)];
    };
    return { ...parts[0], steps, both: parts.map((part) => part.level), chance };
  }

  answer({ error, models, corners, side, cells: levels, edges }) {
    if (error) this.note.textContent = error;
    if (error || !models) return;
    models.forEach((name, n) =>
      this.pixels.set(`${name} ${corners}`, { side, level: levels[n], edges: edges[n] }),
    );
    const { left, right, corners: now, space } = this.state.values;
    if (`${[left, right, now]}` === `${[models, corners]}` && space === "pixels") this.show();
  }

  show() {
    const { left, right, corners, space } = this.state.values;
    const slots = corners.map((i, n) => {
      const title = `corner ${"ABC"[n]}: ${this.scene.title(i).join(", class ")}; click to look at it`;
      const look = () => this.state.set({ pin: i });
      return make("div.group", images(this.scene, [i], 22, title, look), "ABC"[n]);
    });
    this.slots.replaceChildren("corners", ...slots);
    this.mixes = this.find();
    const { side = 0 } = this.mixes ?? {};
    const next = space === "pixels" && this.live && LEVELS.find((level) => level > side);
    if (space === "features") this.note.textContent = "Mixes of features: the head alone, exact.";
    else if (side) this.note.textContent = `${side} cells a side${next ? "; finer to come" : ""}.`;
    else if (next) this.note.textContent = "Asking the kernel …";
    else
      this.note.textContent = "Not kept, and no kernel is here: choose a kept plane, or features.";
    if (next) {
      // One level at a time, so that what is no longer wanted is not computed.
      const wanted = { corners: [...corners], models: [left, right], side: next, at: Date.now() };
      this.model.set("wanted", wanted);
      this.model.save_changes();
    }
    this.paint();
    this.look();
    this.plot();
  }

  paint() {
    const { left, right, corners } = this.state.values;
    const { side, both } = this.mixes ?? {};
    const share = both ? `on ${(100 * differing(...both, side)).toFixed(1)} % of mixes` : "";
    const tones = this.scene.about.colors.map(rgb);
    const unit = PIXELS / 100;
    this.stages.forEach(({ head, top, context, corners: nodes }, n) => {
      const title = [left, right, "Differ"][n];
      const more = n < 2 ? "" : share;
      head.replaceChildren(make("h3", title), make("small", more));
      top.setAttribute("aria-label", `plane of ${title} ${more}`);
      nodes.forEach((node, c) =>
        node.replaceChildren(this.scene.picture(corners[c], 28), "ABC"[c]),
      );
      context.reset();
      if (!both) return;
      const picture = raster(side, (u, v) => {
        const answers = both.map((level) => level[v * side + u]);
        const alpha = n < 2 ? 165 : answers[0] === answers[1] ? 38 : 240;
        return [...tones[answers[n % 2]], alpha];
      });
      const [x, y] = [(WIDE / 2) * unit, -HIGH * unit];
      context.setTransform(WIDE * unit, 0, x, y, LEFT * unit, LOW * unit);
      context.clip(new Path2D("M0 0H1L0 1Z"));
      context.imageSmoothingEnabled = false;
      context.drawImage(picture, 0, 0, 1, 1);
    });
  }

  /** What can change while a pointer or a slider moves. */
  look() {
    const { left, right, corners, mix, edge, along: share, space } = this.state.values;
    const { about } = this.scene;
    const weights = mix ?? along(edge, share);
    const [[x1, y1], [x2, y2], [cx, cy]] = [CORNERS[edge], CORNERS[(edge + 1) % 3], place(weights)];
    for (const stage of this.stages) {
      put(stage.edge, { x1, y1, x2, y2 });
      put(stage.dot, { cx, cy });
    }
    this.info.hidden = !this.mixes;
    if (!this.mixes) return;
    const { side, both, chance } = this.mixes;
    const u = Math.min(side - 1, Math.floor(weights[1] * side));
    const v = Math.min(side - 1 - u, Math.floor(weights[2] * side));
    const [before, after] = both.map((level) => about.classes[level[v * side + u]]);
    const mixed = weights.map((w, n) => `${w.toFixed(2)} ${"ABC"[n]}`).join(" + ");
    const text = make(
      "div",
      make("div", `${left}: `, make("b", before)),
      make("div", `${right}: `, make("b", after)),
      before !== after && make("div.alarm", "they differ"),
      make("div.soft", mixed),
    );
    this.text.replaceChildren(
      make("div.about", space === "pixels" && this.blend(corners, weights), text),
    );
    this.slider.value = share;
    const names = chance(0, weights) ? [...new Set([left, right])] : [];
    this.chances.replaceChildren(...names.map((name, n) => bars(about, name, chance(n, weights))));
  }

  blend(corners, weights) {
    const [height, width] = this.scene.about.shape;
    const scale = 96 / Math.max(height, width);
    const style = `width:${width * scale}px;height:${height * scale}px`;
    const canvas = make("canvas.picture", { width, height, style });
    const picture = new ImageData(width, height);
    const pixels = corners.map((i) => this.scene.pixels(i));
    picture.data.set(blended(pixels, weights));
    canvas.getContext("2d").putImageData(picture, 0, 0);
    return canvas;
  }

  /** Probabilities along the edge: the left model's lines are whole, the right's dashed. */
  plot() {
    if (!this.mixes) return;
    const { chance, steps } = this.mixes;
    const { edge, along: share } = this.state.values;
    const shares = Array.from({ length: steps }, (_, s) => s / (steps - 1));
    const lines = ["polyline", "polyline.dashed"].flatMap((tag, n) => {
      const rows = shares.map((at) => chance(n, along(edge, at)));
      const points = (k) => rows.map((row, s) => [100 * shares[s], 98 - 96 * row[k]]).join(" ");
      const shown = [...rows[0].keys()].filter((k) => rows.some((row) => row[k] > 0.05));
      return shown.map((k) => make(tag, { points: points(k), stroke: this.scene.about.colors[k] }));
    });
    const x = 100 * share;
    this.chart.replaceChildren(...lines, make("line", { x1: x, x2: x, y1: 0, y2: 100 }));
  }
}
