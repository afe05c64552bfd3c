/** What is said of one image, and of the selected ones. */
import { button, download, group, make, put, short } from "./dom.js";
import { softmax } from "./mixes.js";

const TOP = 3; // classes of which a probability is shown
const STRIP = 160; // images in the strip, at most
const HELP = [
  "Point at an image to see it, what both models make of it, and its nearest neighbours in each. Click to keep it.",
  "Draw around images to select them on both maps; with shift, more of them. Ctrl and wheel, or two fingers, zoom; “move” drags the map.",
];

/** Images as a button. @param {Scene} scene @param {number[]} rows @param {number} size */
export function images(scene, rows, size, title, onclick) {
  const node = button("", title, onclick);
  node.className = "images";
  node.append(...rows.map((i) => scene.picture(i, size)));
  return node;
}

/** An image that can be pointed at and kept. */
function thumb(scene, state, i, size, color) {
  const title = scene.title(i).join(", class ");
  const node = images(scene, [i], size, title, () => state.set({ pin: i }));
  put(node, { className: "thumb", style: `border-color:${color}` });
  node.onmouseenter = node.onfocus = () => state.set({ hover: i });
  node.onmouseleave = () => state.set({ hover: -1 });
  return node;
}

/** A model's largest probabilities as bars. @param {string} title @param {number[]} values */
export function bars({ classes, colors }, title, values) {
  const order = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, TOP);
  const rows = order.flatMap((k) => [
    make("span", classes[k], { title: classes[k] }),
    make("i", { style: `width:${100 * values[k]}%;background:${colors[k]}` }),
    make("b", values[k].toFixed(3)),
  ]);
  return make("div.probabilities", make("h3", title), ...rows);
}

/** The image that is pointed at or kept: picture, probabilities, neighbours. */
export class Point {
  /** @param {Scene} scene @param {State} state */
  constructor(scene, state) {
    Object.assign(this, { scene, state });
    this.node = make("div.side");
    this.spoken = make("div.spoken", { role: "status" });
    state.now("hover pin left right", () => this.show());
  }

  show() {
    const { scene, state } = this;
    const { hover, pin, left, right } = state.values;
    const i = hover >= 0 ? hover : pin;
    if (i < 0) {
      this.node.replaceChildren(...HELP.map((text) => make("p.soft", text)));
      return;
    }
    const pair = scene.pair(state.values);
    const [what, label] = scene.title(i);
    const { moved, ...answers } = scene.compare(state.values);
    const [before, after] = [answers.before[i], answers.after[i]].map(
      (k) => scene.about.classes[k],
    );
    const text = make(
      "div",
      make("h3", what),
      make("div", `class ${label}`),
      make("div", moved ? `moved by ${short(moved[i])}` : "D differs: no distance"),
      before !== after && make("div.alarm", `${before} → ${after}`),
      i === pin && this.corners(i),
    );
    const chances = pair.map((m) =>
      bars(scene.about, scene.names[m], softmax(scene.row(`logits ${m}`, i))),
    );
    const about = make("div.about", scene.picture(i, 96), text);
    this.node.replaceChildren(about, ...chances, ...this.neighbors(i, pair));
    this.spoken.textContent = `${what}, class ${label}; ${left} says ${before}, ${right} says ${after}`;
  }

  corners(i) {
    const letters = [..."ABC"].map((letter, n) =>
      button(letter, `make it corner ${letter} of the plane`, () =>
        this.state.set({ corners: this.state.values.corners.with(n, i) }),
      ),
    );
    return make("div.group", "corner", group("div.joined", "corner of the plane", ...letters));
  }

  neighbors(i, pair) {
    const { scene, state } = this;
    const near = pair.map((m) => [...scene.row(`neighbors ${m}`, i)]);
    const kept = near[1].filter((n) => near[0].includes(n)).length;
    const counts = ["", `: ${kept} of ${near[0].length} kept`];
    return pair.flatMap((m, side) => {
      const color = (n) => scene.about.colors[scene.arrays[`answers ${m}`][n]];
      const nodes = near[side].map((n) => thumb(scene, state, n, 24, color(n)));
      const title = `Nearest under ${scene.names[m]}${counts[side]}`;
      return [make("h3.soft", title), make("div.row", ...nodes)];
    });
  }
}

/** The selected images: a sentence that counts them, and a strip of them. */
export class Selection {
  /** @param {Scene} scene @param {State} state */
  constructor(scene, state) {
    Object.assign(this, { scene, state });
    this.text = make("span", { role: "status" });
    const save = () => download("selected.csv", new Blob([this.csv()], { type: "text/csv" }));
    this.tools = make(
      "span.bar",
      button("CSV", "save what is selected as a table", save),
      button("clear", "select nothing", () => state.set({ selected: [] })),
    );
    this.strip = group("div.strip", "selected images");
    this.node = make("div", make("div.bar", this.text, this.tools), this.strip);
    this.strip.onkeydown = ({ key }) => {
      const step = { ArrowRight: "nextSibling", ArrowLeft: "previousSibling" }[key];
      document.activeElement[step]?.focus();
    };
    state.now("selected left right", () => this.show());
  }

  /** Selected rows, those that moved farthest first. @returns {number[]} */
  rows() {
    const { moved } = this.scene.compare(this.state.values);
    const rows = [...this.state.values.selected];
    return moved ? rows.sort((a, b) => moved[b] - moved[a]) : rows;
  }

  show() {
    const { scene, state } = this;
    const rows = this.rows();
    const { after } = scene.compare(state.values);
    this.tools.hidden = !rows.length;
    const triggers = scene.count - scene.images;
    const all = `${scene.images} images${triggers ? ` and ${triggers} triggers (×)` : ""}.`;
    this.text.textContent = rows.length ? this.sentence(rows) : all;
    const thumbs = rows
      .slice(0, STRIP)
      .map((i) => thumb(scene, state, i, 28, scene.about.colors[after[i]]));
    thumbs.forEach((node, n) => (node.tabIndex = n ? -1 : 0));
    const rest = rows.length - thumbs.length;
    this.strip.replaceChildren(...thumbs, ...(rest ? [make("small", ` and ${rest} more`)] : []));
  }

  sentence(rows) {
    const { scene, state } = this;
    const { left, right } = state.values;
    const { before, after, moved } = scene.compare(state.values);
    const count = (test) => rows.filter(test).length;
    const middle = moved ? `; moved by ${short(moved[rows[rows.length >> 1]])} (median)` : "";
    return (
      `${rows.length} selected: ${count((i) => before[i] !== after[i])} answers changed; ` +
      `${left} is right on ${count((i) => before[i] === scene.labels[i])}, ` +
      `${right} on ${count((i) => after[i] === scene.labels[i])}${middle}.`
    );
  }

  /** What is selected as a table. @returns {string} */
  csv() {
    const { scene, state } = this;
    const { left, right } = state.values;
    const { before, after, moved } = scene.compare(state.values);
    const head = ["kind", "number", "class", left, right, "moved"];
    const rows = this.rows().map((i) => {
      const [kind, number] = scene.title(i)[0].split(" ");
      const answers = [before[i], after[i]].map((k) => scene.about.classes[k]);
      return [kind, number, scene.title(i)[1], ...answers, moved ? moved[i].toPrecision(6) : ""];
    });
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    return [head, ...rows].map((row) => `${row.map(quoted).join(",")}\n`).join("");
  }
}
