/** Trade-offs: linked panels of measures over models, a brush, a table. */
import { Scene, State, button, capture, choice, make, short, sized, spot } from "./data.js";

const PAIRS = [["trigger_accuracy", "pfl"], ["twl", "pfl"], ["twl", "agreement"]]; // prettier-ignore
const PAD = { left: 46, right: 14, top: 12, bottom: 24 };
const NEAR = 12;

/** A scale over values: logarithmic where they span much, with a place for 0. */
export function axis(values) {
  const positive = values.filter((v) => v > 0);
  const [least, most] = [Math.min(...positive), Math.max(...positive)];
  const log = positive.length > 1 && !values.some((v) => v < 0) && most / least > 30;
  const zero = log && values.includes(0);
  const bent = (v) => (log ? Math.log10(v) : v);
  let [low, high] = log ? [least, most].map(bent) : [Math.min(...values), Math.max(...values)];
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  [low, high] = [low - (zero ? 4 : 1) * room, high + room];
  const share = (v) => (zero && v === 0 ? 0.04 : (bent(v) - low) / (high - low));
  const ticks = [];
  if (log) {
    const every = Math.ceil((high - low) / 5);
    for (let e = Math.ceil(bent(least) - 0.3); e <= high; e += every) ticks.push(10 ** e);
    if (zero) ticks.unshift(0);
  } else {
    const raw = (high - low) / 4;
    const unit = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((k) => k * unit).find((k) => k >= raw);
    for (let n = Math.ceil(low / step); n * step <= high; n++)
      ticks.push(+(n * step).toPrecision(6));
  }
  return { share, ticks: ticks.filter((v) => share(v) >= 0 && share(v) <= 1) };
}

/** Places of those that no other beats in both. @param {number[][]} points more is better */
export const front = (points) =>
  points.flatMap(([x, y], n) =>
    points.some(([u, v]) => u >= x && v >= y && (u > x || v > y)) ? [] : [n],
  );

const MARKERS = {
  o: "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0z",
  s: "M-1-1h2v2h-2z",
  D: "M0-1.3L1.3 0 0 1.3-1.3 0z",
  P: "M-.4-1.2h.8v.8h.8v.8h-.8v.8h-.8v-.8h-.8v-.8h.8z",
  "^": "M0-1.3L1.2 1h-2.4z",
  v: "M0 1.3L1.2-1h-2.4z",
};

/** A method's marker. @returns {Path2D} */
function marked(marker, x, y, radius) {
  const path = new Path2D();
  path.addPath(new Path2D(MARKERS[marker]), new DOMMatrix([radius, 0, 0, radius, x, y]));
  return path;
}

/** The section on models; `node` is to be shown. */
export class Models {
  /** @param {Scene} scene @param {State} state */
  constructor(scene, state) {
    Object.assign(this, { scene, state, panels: [], hot: -1, box: null });
    this.groups = [{ title: "models shown here", rows: scene.about.models }, ...scene.about.tables];
    this.said = make("small", { role: "status" });
    this.grid = make("div.panels");
    this.table = make("table");
    const pick = choice(
      "models",
      this.groups.map((group) => group.title),
      (title) =>
        state.set({
          table: this.groups.findIndex((g) => g.title === title),
          brushed: [],
          panels: null,
        }),
    );
    this.clear = button("clear", "select no models", () => this.brush([], null));
    const bar = make("div.bar", make("h2", "Trade-offs"));
    if (this.groups.length > 1) bar.append(make("label", "models", pick));
    bar.append(this.said, this.clear);
    const scroll = make("div.scroll", { tabIndex: 0, role: "region" }, this.table);
    scroll.setAttribute("aria-label", "table of models");
    this.node = make("section", { "aria-label": "trade-offs" }, bar, this.grid, scroll);
    state.on("table panels", () => this.build());
    state.on("brushed sort right dark", () => this.show());
    state.on("size", () => this.paint());
    this.build();
  }

  /** Rows of the chosen table, and the measures that they have. */
  build() {
    const { values } = this.state;
    const group = this.groups[values.table] ?? this.groups[0];
    this.rows = group.rows;
    const finite = (name) =>
      this.rows.filter((row) => Number.isFinite(row.values[name])).length > 1;
    this.measures = this.scene.about.measures.filter((one) => finite(one.name));
    const names = this.measures.map((one) => one.name);
    this.node.hidden = names.length < 2;
    if (this.node.hidden) return;
    const known = ([x, y]) => names.includes(x) && names.includes(y);
    const other = (n) => [names[(2 * n) % names.length], names[(2 * n + 1) % names.length]];
    const begun = PAIRS.map((pair, n) => (known(pair) ? pair : other(n)));
    this.pairs = values.panels?.every(known) ? values.panels : begun;
    this.grid.hidden = this.rows.length < 3; // two models are told by the table alone
    this.panels = this.pairs.map((pair, n) => this.panel(pair, n));
    this.grid.replaceChildren(...this.panels.map((panel) => panel.node));
    this.show();
  }

  measure(name) {
    return this.measures.find((one) => one.name === name);
  }

  panel([x, y], n) {
    const pick = (at, title) => {
      const titles = this.measures.map((one) => one.title);
      const change = (chosen) => {
        const pairs = this.pairs.map((pair) => [...pair]);
        pairs[n][at] = this.measures[titles.indexOf(chosen)].name;
        this.state.set({ panels: pairs });
      };
      const node = choice(title, titles, change);
      const { title: own, unit } = this.measure([x, y][at]);
      Object.assign(node, { value: own, title: `${own}: ${unit}` });
      return node;
    };
    const canvas = make("canvas", { role: "img", "aria-label": `${y} against ${x} of all models` });
    const panel = { x, y, canvas };
    const head = make(
      "div.bar",
      pick(1, "upwards"),
      make("small", "over"),
      pick(0, "to the right"),
    );
    panel.node = make("div.panel", head, make("div.stage", canvas));
    this.listen(panel);
    return panel;
  }

  listen(panel) {
    const { canvas } = panel;
    let start = null;
    canvas.onpointerdown = (event) => {
      try {
        canvas.setPointerCapture(event.pointerId);
      } catch {
        // a pointer that is gone already, or was made up
      }
      start = spot(event, canvas);
    };
    canvas.onpointermove = (event) => {
      const at = spot(event, canvas);
      if (start) this.brush(this.within(panel, start, at), { panel, start, at });
      else this.point(this.nearest(panel, ...at));
    };
    canvas.onpointerup = (event) => {
      const at = spot(event, canvas);
      const still = start && Math.hypot(at[0] - start[0], at[1] - start[1]) < 5;
      const hit = still ? this.nearest(panel, ...at) : -1;
      if (still) this.brush([], null);
      start = null;
      if (hit >= 0) this.open(hit);
    };
    canvas.onpointerleave = () => this.point(-1);
  }

  /** Rows of the models in a rectangle. */
  within(panel, [a, b], [c, d]) {
    return this.shown(panel).filter((n) => {
      const [x, y] = panel.places[n];
      return (x - a) * (x - c) <= 0 && (y - b) * (y - d) <= 0;
    });
  }

  nearest(panel, x, y) {
    const far = (n) => Math.hypot(panel.places[n][0] - x, panel.places[n][1] - y);
    const order = this.shown(panel).sort((one, other) => far(one) - far(other));
    return order.length && far(order[0]) < NEAR ? order[0] : -1;
  }

  brush(brushed, box) {
    this.box = box;
    this.state.set({ brushed });
    this.paint();
  }

  point(hot) {
    if (hot === this.hot) return;
    this.hot = hot;
    [...(this.table.tBodies[0]?.rows ?? [])].forEach((row) =>
      row.classList.toggle("hot", row.place === hot),
    );
    this.paint();
  }

  /** Show a model in the maps. */
  open(n) {
    const { name } = this.rows[n];
    const known = this.scene.index(name) >= 0;
    if (known) this.state.set({ right: name });
    this.said.textContent = known
      ? `${name} is in the maps now.`
      : `${name}: its outputs are not kept here.`;
  }

  /** Rows that have both measures of a panel. */
  shown({ x, y }) {
    const known = (n) => [x, y].every((name) => Number.isFinite(this.rows[n].values[name]));
    return [...this.rows.keys()].filter(known);
  }

  show() {
    if (this.node.hidden) return;
    const { brushed, sort, right } = this.state.values;
    const some = brushed.length
      ? `${brushed.length} of ${this.rows.length} models`
      : `${this.rows.length} models`;
    this.said.textContent = `${some}. Draw a box to select, click one to see it in the maps; dashed: none is better in both.`;
    this.clear.style.visibility = brushed.length ? "" : "hidden";
    const [by, down] = sort ?? [null, false];
    const value = (n) => this.rows[n].values[by] ?? Infinity;
    const order = (brushed.length ? brushed : [...this.rows.keys()]).filter(
      (n) => n < this.rows.length,
    );
    if (by) order.sort((a, b) => (down ? -1 : 1) * (value(a) - value(b)) || 0);
    const heads = this.measures.map(({ name, title, unit }) => {
      const next = () => this.state.set({ sort: [name, by === name && !down] });
      const arrow = by === name ? (down ? " ▼" : " ▲") : "";
      const sorted = by === name ? (down ? "descending" : "ascending") : "none";
      return make(
        "th",
        { scope: "col", "aria-sort": sorted },
        button(`${title}${arrow}`, `${title}: ${unit}`, next),
      );
    });
    const first = make(
      "th",
      { scope: "col" },
      button("model", "in the order of the study", () => this.state.set({ sort: null })),
    );
    const rows = order.map((n) => {
      const { name, values } = this.rows[n];
      const cells = this.measures.map((one) => make("td", short(values[one.name])));
      const title = make("th", { scope: "row", textContent: name });
      if (name === right) title.style.fontWeight = "600";
      const row = make(
        "tr",
        { tabIndex: 0, place: n, onclick: () => this.open(n) },
        title,
        ...cells,
      );
      row.onmouseenter = row.onfocus = () => this.point(n);
      row.onkeydown = (event) => event.key === "Enter" && this.open(n);
      return row;
    });
    this.table.replaceChildren(make("thead", make("tr", first, ...heads)), make("tbody", ...rows));
    this.paint();
  }

  paint() {
    // A table that shrinks would move the page under a pointer that brushes.
    const { parentNode } = this.table;
    if (!this.state.values.brushed.length) {
      parentNode.style.minHeight = "";
      parentNode.style.minHeight = `${parentNode.offsetHeight}px`;
    }
    for (const panel of this.node.hidden ? [] : this.panels)
      if (panel.canvas.clientWidth) this.draw(panel);
  }

  draw(panel) {
    const { canvas } = panel;
    const { dark, brushed, right } = this.state.values;
    const [ink, soft, line] = dark
      ? ["#e8eaee", "#a2a9b5", "#2a2e37"]
      : ["#1d1f23", "#5d636d", "#e8eaee"];
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const context = sized(canvas, width, height);
    const shown = this.shown(panel);
    const of = (name) => shown.map((n) => this.rows[n].values[name]);
    const [across, up] = [axis(of(panel.x)), axis(of(panel.y))];
    const toX = (v) => PAD.left + across.share(v) * (width - PAD.left - PAD.right);
    const toY = (v) => height - PAD.bottom - up.share(v) * (height - PAD.top - PAD.bottom);
    panel.places = this.rows.map(({ values }) => [toX(values[panel.x]), toY(values[panel.y])]);
    context.font = "11px system-ui, sans-serif";
    Object.assign(context, { fillStyle: soft, strokeStyle: line, textAlign: "center" });
    for (const v of across.ticks) {
      context.strokeRect(toX(v), PAD.top, 0, height - PAD.top - PAD.bottom);
      context.fillText(short(v), toX(v), height - 8);
    }
    context.textAlign = "right";
    for (const v of up.ticks) {
      context.strokeRect(PAD.left, toY(v), width - PAD.left - PAD.right, 0);
      context.fillText(short(v), PAD.left - 6, toY(v) + 4);
    }
    this.edge(context, panel, shown, soft);
    for (const n of shown) {
      const { name, color, marker } = this.rows[n];
      const [x, y] = panel.places[n];
      context.globalAlpha = !brushed.length || brushed.includes(n) ? 0.9 : 0.15;
      const path = marked(marker, x, y, n === this.hot || name === right ? 6 : 4.5);
      context.fillStyle = context.strokeStyle = color === "#404040" && dark ? "#c9c9c9" : color;
      context.lineWidth = 1.6;
      context[name.includes("/") ? "stroke" : "fill"](path);
      context.globalAlpha = 1;
      if (n !== this.hot && name !== right) continue;
      context.strokeStyle = context.fillStyle = ink;
      context.stroke(path);
      context.textAlign = x > width / 2 ? "right" : "left";
      context.fillText(name, x + (x > width / 2 ? -10 : 10), Math.max(y - 8, 12));
    }
    if (this.box?.panel !== panel) return;
    const [[a, b], [c, d]] = [this.box.start, this.box.at];
    Object.assign(context, { strokeStyle: ink, fillStyle: "#80808026", lineWidth: 1 });
    context.fillRect(a, b, c - a, d - b);
    context.strokeRect(a, b, c - a, d - b);
  }

  /** A dashed line through the models that none beats in both measures. */
  edge(context, panel, shown, color) {
    const ways = [panel.x, panel.y].map((name) => this.measure(name).direction);
    if (ways.includes(0)) return;
    const points = shown.map((n) =>
      [panel.x, panel.y].map((name, axis) => ways[axis] * this.rows[n].values[name]),
    );
    const best = front(points).map((at) => panel.places[shown[at]]);
    context.setLineDash([4, 4]);
    context.strokeStyle = color;
    context.beginPath();
    for (const place of best.sort((a, b) => a[0] - b[0] || a[1] - b[1])) context.lineTo(...place);
    context.stroke();
    context.setLineDash([]);
  }
}
