/** What is said of one image, and of the selected ones. */
import { Scene } from "./data.js";
import { button, group, make, short } from "./dom.js";
import { softmax } from "./mixes.js";
import { State } from "./state.js";

const TOP = 3; // classes of which a probability is shown
const STRIP = 160; // images in the strip, at most
const HELP = [
  "Point at an image to see it, what both models make of it, and its nearest neighbours in each. Click to keep it.",
  "Draw around images to select them on both maps; with shift, more of them.",
  "Ctrl and wheel, or two fingers, zoom; “move” drags the map.",
];

/** An image that can be pointed at and kept. */
function thumb(scene, state, i, size, color) {
  const node = button("", scene.title(i).join(", class "), () => state.set({ pin: i }));
  node.className = "thumb";
  node.style.borderColor = color;
  node.append(scene.picture(i, size));
  node.onmouseenter = node.onfocus = () => state.set({ hover: i });
  node.onmouseleave = () => state.set({ hover: -1 });
  return node;
}

/** Models' largest probabilities as bars. @param {Map<string, number[]>} chances by model */
export function bars({ classes, colors }, chances) {
  const rows = [...chances].map(([model, values]) => [
    make("h3", model),
    ...[...values.keys()]
      .sort((a, b) => values[b] - values[a])
      .slice(0, TOP)
      .flatMap((k) => {
        const style = `width:${100 * values[k]}%;background:${colors[k]}`;
        const name = make("span", classes[k], { title: classes[k] });
        return [name, make("i", { style }), make("b", values[k].toFixed(3))];
      }),
  ]);
  return make("div.probabilities", ...rows.flat());
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
    const [before, after] = pair.map((m) => scene.about.classes[scene.answers(m)[i]]);
    const [what, label] = scene.title(i);
    const [moved] = scene.moved(state.values);
    const text = make(
      "div",
      make("h3", what),
      make("div", `class ${label}`),
      make("div", moved ? `moved by ${short(moved[i])}` : "D differs: no distance"),
    );
    if (before !== after) text.append(make("div.alarm", `${before} → ${after}`));
    if (i === pin) text.append(this.corners(i));
    const chances = pair.map((m) => [scene.names[m], softmax(scene.row(`logits ${m}`, i))]);
    this.node.replaceChildren(
      make("div.about", scene.picture(i, 96), text),
      bars(scene.about, new Map(chances)),
      ...this.neighbors(i, pair),
    );
    this.spoken.textContent = `${what}, class ${label}; ${left} says ${before}, ${right} says ${after}`;
  }

  /** Buttons that make an image a corner of the plane. */
  corners(i) {
    const letters = [..."ABC"].map((letter, n) =>
      button(letter, `make it corner ${letter} of the plane`, () =>
        this.state.set({ corners: this.state.values.corners.with(n, i) }),
      ),
    );
    return make("div.group", "corner", group("div.joined", "corner of the plane", ...letters));
  }

  /** Its neighbours under both models, and how many are kept. */
  neighbors(i, [left, right]) {
    const { scene, state } = this;
    const [before, after] = [left, right].map((m) => [...scene.row(`neighbors ${m}`, i)]);
    const kept = after.filter((n) => before.includes(n)).length;
    const row = (m, rows) => {
      const color = (n) => scene.about.colors[scene.answers(m)[n]];
      return make("div.row", ...rows.map((n) => thumb(scene, state, n, 24, color(n))));
    };
    const parts = [make("h3.soft", `Nearest under ${scene.names[left]}`), row(left, before)];
    if (left === right) return parts;
    const title = `Under ${scene.names[right]}: ${kept} of ${before.length} kept`;
    return [...parts, make("h3.soft", title), row(right, after)];
  }
}

/** The selected images: a sentence that counts them, and a strip of them. */
export class Selection {
  /** @param {Scene} scene @param {State} state @param {Node[]} tools behind the sentence */
  constructor(scene, state, tools) {
    Object.assign(this, { scene, state });
    this.text = make("span", { role: "status" });
    this.tools = make("span.bar", ...tools);
    this.strip = group("div.strip", "selected images");
    this.node = make("div", make("div.bar", this.text, this.tools), this.strip);
    this.strip.onkeydown = (event) => {
      const step = { ArrowRight: "nextSibling", ArrowLeft: "previousSibling" }[event.key];
      if (!step) return;
      event.preventDefault();
      document.activeElement[step]?.focus();
    };
    state.now("selected left right", () => this.show());
  }

  /** Selected rows, those that moved farthest first. @returns {number[]} */
  rows() {
    const [moved] = this.scene.moved(this.state.values);
    const rows = [...this.state.values.selected];
    return moved ? rows.sort((a, b) => moved[b] - moved[a]) : rows;
  }

  show() {
    const { scene, state } = this;
    const rows = this.rows();
    const after = scene.answers(scene.pair(state.values)[1]);
    this.tools.hidden = !rows.length;
    this.text.textContent = rows.length ? this.sentence(rows) : this.all();
    const thumbs = rows
      .slice(0, STRIP)
      .map((i) => thumb(scene, state, i, 28, scene.about.colors[after[i]]));
    thumbs.forEach((node, n) => (node.tabIndex = n ? -1 : 0));
    const rest = rows.length - thumbs.length;
    this.strip.replaceChildren(...thumbs, ...(rest ? [make("small", ` and ${rest} more`)] : []));
  }

  /** What there is to select. */
  all() {
    const { images, count } = this.scene;
    const triggers = count - images;
    const more = triggers ? ` and ${triggers.toLocaleString("en")} triggers (×)` : "";
    return `${images.toLocaleString("en")} images${more}.`;
  }

  /** What is selected, counted. */
  sentence(rows) {
    const { scene, state } = this;
    const { left, right } = state.values;
    const [before, after] = scene.pair(state.values).map((m) => scene.answers(m));
    const [moved] = scene.moved(state.values);
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
    const models = scene.pair(state.values);
    const [moved] = scene.moved(state.values);
    const head = ["kind", "number", "class", ...models.map((m) => scene.names[m]), "moved"];
    const rows = this.rows().map((i) => {
      const [kind, number] = scene.title(i)[0].split(" ");
      const answers = models.map((m) => scene.about.classes[scene.answers(m)[i]]);
      return [kind, number, scene.title(i)[1], ...answers, moved ? moved[i].toPrecision(6) : ""];
    });
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    return [head, ...rows].map((row) => `${row.map(quoted).join(",")}\n`).join("");
  }
}
