/** What is said of one image, and of the selected ones. */
import { Scene, State, button, joined, make, short, softmax } from "./data.js";
import { distances } from "./maps.js";

const TOP = 3; // classes of which a probability is shown
const STRIP = 160; // images in the strip, at most

/** An image that can be pointed at and kept. */
export function thumb(scene, state, i, size, color = "transparent") {
  const node = button("", scene.title(i), () => state.set({ pin: i }));
  node.className = "thumb";
  node.style.borderColor = color;
  node.append(scene.picture(i, size));
  node.onmouseenter = node.onfocus = () => state.set({ hover: i });
  node.onmouseleave = () => state.set({ hover: -1 });
  return node;
}

/** A model's largest probabilities as bars. @param {number[]} found */
export function bars(scene, title, found) {
  const order = [...found.keys()].sort((a, b) => found[b] - found[a]).slice(0, TOP);
  const rows = order.flatMap((k) => {
    const bar = make("i");
    bar.style.cssText = `width:${100 * found[k]}%;background:${scene.about.colors[k]}`;
    const name = scene.about.classes[k];
    return [make("span", name, { title: name }), bar, make("b", found[k].toFixed(3))];
  });
  return [make("h3", title), ...rows];
}

/** The image that is pointed at or kept: picture, probabilities, neighbours. */
export class Point {
  /** @param {Scene} scene @param {State} state */
  constructor(scene, state) {
    Object.assign(this, { scene, state });
    this.node = make("div.side");
    this.spoken = make("div.spoken", { role: "status" });
    state.on("hover pin left right film", () => this.show());
    this.show();
  }

  show() {
    const { scene, state } = this;
    const { values } = state;
    const i = values.hover >= 0 ? values.hover : values.pin;
    if (i < 0) {
      const told = [
        "Point at an image to see it, what both models make of it, and its nearest neighbours in each. Click to keep it.",
        "Draw around images to select them on both maps; with shift, more of them.",
        "Ctrl and wheel, or two fingers, zoom; “move” drags the map.",
      ];
      const parts = told.map((text) => make("p.soft", text));
      this.node.replaceChildren(...parts);
      return;
    }
    const [left, right] = [values.left, values.right].map((name) => scene.index(name));
    const { moved } = distances(scene, values);
    const says = [left, right].map((m) => scene.about.classes[scene.answers(m)[i]]);
    const [what, label] = scene.title(i).split(", class ");
    const told = make("div", make("h3", what), `class ${label}`);
    const far = moved ? `moved by ${short(moved[i])}` : "D differs: no distance";
    told.append(make("div", far));
    if (says[0] !== says[1]) told.append(make("div.alarm", `${says[0]} → ${says[1]}`));
    if (i === values.pin) told.append(this.corners(i));
    const chances = make("div.probabilities");
    for (const m of left === right ? [left] : [left, right])
      chances.append(...bars(scene, scene.names[m], softmax(scene.logits(m, i))));
    const picture = make("div.about", scene.picture(i, 96), told);
    this.node.replaceChildren(picture, chances, ...this.neighbors(i, left, right));
    this.spoken.textContent = `${scene.title(i)}; ${values.left} says ${says[0]}, ${values.right} says ${says[1]}`;
  }

  /** Buttons that make an image a corner of the plane. */
  corners(i) {
    const { state } = this;
    const letters = joined("corner of the plane");
    [..."ABC"].forEach((letter, n) => {
      const put = () =>
        state.set({ corners: state.values.corners.map((old, at) => (at === n ? i : old)) });
      letters.append(button(letter, `make it corner ${letter} of the plane`, put));
    });
    return make("div.group", "corner", letters);
  }

  neighbors(i, left, right) {
    const { scene, state } = this;
    const before = new Set(scene.near(left, i));
    const kept = [...scene.near(right, i)].filter((n) => before.has(n)).length;
    const titles = [
      `Nearest under ${scene.names[left]}`,
      `Under ${scene.names[right]}: ${kept} of ${before.size} kept`,
    ];
    const found = [];
    [left, right].forEach((m, n) => {
      if (n && left === right) return;
      const answers = scene.answers(m);
      const row = make("div.row");
      for (const other of scene.near(m, i))
        row.append(thumb(scene, state, other, 24, scene.about.colors[answers[other]]));
      found.push(make("h3.soft", titles[n]), row);
    });
    return found;
  }
}

/** The selected images: a sentence that counts them, and a strip of them. */
export class Selection {
  /** @param {Scene} scene @param {State} state @param {Node[]} tools behind the sentence */
  constructor(scene, state, tools) {
    Object.assign(this, { scene, state });
    this.said = make("span", { role: "status" });
    this.tools = make("span.bar", ...tools);
    this.strip = make("div", {
      className: "strip",
      role: "group",
      "aria-label": "selected images",
    });
    this.node = make("div", make("div.bar", this.said, this.tools), this.strip);
    this.strip.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const all = [...this.strip.querySelectorAll("button")];
      const to = all[all.indexOf(document.activeElement) + step];
      if (!to) return;
      event.preventDefault();
      to.focus();
    };
    state.on("selected left right", () => this.show());
    this.show();
  }

  /** Selected rows, those that moved farthest first. @returns {number[]} */
  rows() {
    const { moved } = distances(this.scene, this.state.values);
    const rows = [...this.state.values.selected];
    return moved ? rows.sort((a, b) => moved[b] - moved[a]) : rows;
  }

  show() {
    const { scene, state } = this;
    const { left, right } = state.values;
    const rows = this.rows();
    this.tools.hidden = !rows.length;
    if (!rows.length) {
      const triggers = scene.count - scene.images;
      const more = triggers ? ` and ${triggers.toLocaleString("en")} triggers (×)` : "";
      this.said.textContent = `${scene.images.toLocaleString("en")} images${more}.`;
      this.strip.replaceChildren();
      return;
    }
    const [before, after] = [left, right].map((name) => scene.answers(scene.index(name)));
    const { moved } = distances(scene, state.values);
    const of = (test) => rows.filter(test).length;
    const middle = moved ? `; moved by ${short(moved[rows[rows.length >> 1]])} (median)` : "";
    this.said.textContent =
      `${rows.length} selected: ${of((i) => before[i] !== after[i])} answers changed; ` +
      `${left} is right on ${of((i) => before[i] === scene.labels[i])}, ` +
      `${right} on ${of((i) => after[i] === scene.labels[i])}${middle}.`;
    const colors = scene.about.colors;
    const thumbs = rows.slice(0, STRIP).map((i) => thumb(scene, state, i, 28, colors[after[i]]));
    thumbs.forEach((node, n) => (node.tabIndex = n ? -1 : 0));
    const rest = rows.length - thumbs.length;
    if (rest) thumbs.push(make("small", { textContent: ` and ${rest} more` }));
    this.strip.replaceChildren(...thumbs);
  }

  /** What is selected as a table. @returns {string} */
  csv() {
    const { scene, state } = this;
    const models = [state.values.left, state.values.right].map((name) => scene.index(name));
    const { moved } = distances(scene, state.values);
    const { classes } = scene.about;
    const text = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
    const head = ["kind", "number", "class", ...models.map((m) => scene.names[m]), "moved"];
    const rows = this.rows().map((i) => [
      i < scene.images ? "image" : "trigger",
      i < scene.images ? scene.arrays.rows[i] : i - scene.images,
      classes[scene.labels[i]],
      ...models.map((m) => classes[scene.answers(m)[i]]),
      moved ? moved[i].toPrecision(6) : "",
    ]);
    return (
      [head, ...rows].map((row) => row.map((v) => text(String(v))).join(",")).join("\n") + "\n"
    );
  }
}
