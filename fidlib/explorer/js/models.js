/** Trade-offs: linked panels of measures over models, a brush, a table. */
import { apart, button, choice, chosen, make, put, short, spot } from "./dom.js";

const PAIRS = ["trigger_accuracy pfl", "twl pfl", "twl agreement"].map((pair) => pair.split(" "));
const [ACROSS, VIEW] = [380, "0 0 380 330"]; // a panel's units: the window decides their size
const BOX = { left: 46, right: 366, top: 14, bottom: 304 };
const NEAR = 14;
const STILL = 5; // units: a box less wide is a click
const MARKERS = {
  o: "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0z",
  s: "M-1-1h2v2h-2z",
  D: "M0-1.3L1.3 0 0 1.3-1.3 0z",
  P: "M-.4-1.2h.8v.8h.8v.8h-.8v.8h-.8v-.8h-.8v-.8h.8z",
  "^": "M0-1.3L1.2 1h-2.4z",
  v: "M0 1.3L1.2-1h-2.4z",
};

/** A scale over values: logarithmic where they span much, and linear near 0. */
function axis(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const least = Math.min(...values.filter((v) => v > 0));
  const log = low >= 0 && high / least > 30;
  const bent = (v) => (log ? Math.asinh(v / least) : v);
  const span = bent(high) - bent(low) || Math.abs(low) || 1;
  const share = (v) => (bent(v) - bent(low) + 0.06 * span) / (1.12 * span);
  const unit = 10 ** Math.floor(Math.log10(span / 4));
  const step = [1, 2, 5, 10].map((k) => k * unit).find((k) => 4 * k >= span);
  const decades = Math.ceil(Math.log10(high / least) / 4);
  const tick = (n) =>
    log
      ? 10 ** (Math.ceil(Math.log10(least)) + n * decades)
      : +((Math.ceil(low / step - 1) + n) * step).toPrecision(6);
  const ticks = [0, 1, 2, 3, 4, 5, 6].map(tick).filter((v) => share(v) >= 0 && share(v) <= 1);
  return { share, ticks: log && low === 0 ? [0, ...ticks] : ticks };
}

/** Places of those that no other beats in both. @param {number[][]} points more is better */
const front = (points) =>
  points.flatMap(([x, y], n) =>
    points.some(([u, v]) => u >= x && v >= y && (u > x || v > y)) ? [] : [n],
  );

/** The section on models; `node` is to be shown. */
export class Models {
  /** @param {Scene} scene @param {State} state */
  constructor(scene, state) {
    Object.assign(this, { scene, state, panels: [], box: null });
    this.text = make("small", { role: "status" });
    this.grid = make("div.panels");
    this.table = make("table");
    const titles = scene.tables.map((one) => one.title);
    const pick = make("label", "models", chosen(state, "table", "models", titles));
    pick.hidden = titles.length < 2;
    const bar = make("div.bar", make("h2", "Trade-offs"), pick, this.text);
    const region = { tabIndex: 0, role: "region", "aria-label": "table of models" };
    const scroll = make("div.scroll", region, this.table);
    this.node = make("section", { "aria-label": "trade-offs" }, bar, this.grid, scroll);
    state.on("table", (changed) => changed.includes("brushed") || state.set({ brushed: [] }));
    state.now("table panels", () => this.build());
    state.on("brushed sort right", () => this.show());
    state.on("hot", () => this.draw());
  }

  /** Rows of the chosen table, the measures that they have, and a panel for each pair. */
  build() {
    const { table, panels } = this.state.values;
    this.rows = this.scene.tables.find((one) => one.title === table).rows;
    const some = ({ name }) =>
      this.rows.filter((row) => Number.isFinite(row.values[name])).length > 1;
    this.measures = this.scene.about.measures.filter(some);
    const names = this.measures.map((one) => one.name);
    this.node.hidden = names.length < 2;
    if (names.length < 2) return;
    this.grid.hidden = this.text.hidden = this.rows.length < 3; // a table tells of two
    const pairs = PAIRS.map((pair, n) => {
      const other = [0, 1].map((at) => names[(2 * n + at) % names.length]);
      return [panels?.[n], pair, other].find((each) => each?.every((name) => names.includes(name)));
    });
    this.panels = pairs.map((pair, n) => this.panel(pairs, pair, n));
    this.grid.replaceChildren(...this.panels.map((panel) => panel.node));
    this.show();
  }

  panel(pairs, pair, n) {
    const measures = pair.map((name) => this.measures.find((one) => one.name === name));
    const options = this.measures.map(({ title, name }) => [title, name]);
    const [across, up] = ["to the right", "upwards"].map((title, at) => {
      const change = (name) => this.state.set({ panels: pairs.with(n, pair.with(at, name)) });
      const node = choice(title, options, change);
      put(node, { value: pair[at], title: `${measures[at].title}: ${measures[at].unit}` });
      return node;
    });
    const title = `${pair[1]} against ${pair[0]} of all models`;
    const chart = make("svg", { viewBox: VIEW, role: "img", "aria-label": title });
    const panel = { pair, measures, chart };
    const head = make("div.bar", up, make("small", "over"), across);
    panel.node = make("div.panel", head, make("div.stage", chart));
    const at = (event) => spot(event, chart, ACROSS);
    let start = null;
    chart.onpointerdown = (event) => {
      chart.setPointerCapture(event.pointerId);
      start = at(event);
    };
    chart.onpointermove = (event) => {
      const end = at(event);
      if (start) this.brush(this.within(panel, start, end), { panel, start, end });
      else this.state.set({ hot: this.nearest(panel, end) });
    };
    chart.onpointerup = (event) => {
      const still = start && apart(at(event), start) < STILL;
      const n = still ? this.nearest(panel, start) : -1;
      if (still) this.brush([], null);
      start = null;
      if (n >= 0) this.open(n);
    };
    chart.onpointerleave = () => this.state.set({ hot: -1 });
    return panel;
  }

  within({ places }, [a, b], [c, d]) {
    const inside = ([, [x, y]]) => (x - a) * (x - c) <= 0 && (y - b) * (y - d) <= 0;
    return [...places].filter(inside).map(([n]) => n);
  }

  nearest({ places }, at) {
    const far = [...places].map(([n, place]) => [apart(place, at), n]);
    const [distance, n] = far.sort((a, b) => a[0] - b[0])[0] ?? [];
    return distance < NEAR ? n : -1;
  }

  brush(brushed, box) {
    this.box = box;
    this.state.set({ brushed });
    this.draw();
  }

  open(n) {
    const { name } = this.rows[n];
    if (this.scene.names.includes(name)) this.state.set({ right: name });
    else this.text.textContent = `${name}: its outputs are not kept here.`;
  }

  show() {
    if (this.node.hidden) return;
    const { brushed, sort, right } = this.state.values;
    const [by, down] = sort ?? [];
    const order = [...this.rows.keys()];
    const value = (n) => this.rows[n].values[by] ?? Infinity;
    if (by) order.sort((a, b) => (down ? -1 : 1) * (value(a) - value(b)) || 0);
    order.sort((a, b) => brushed.includes(b) - brushed.includes(a));
    const count = brushed.length ? `${brushed.length} of ${order.length}` : order.length;
    this.text.textContent = `${count} models. Draw a box to select, click one to see it in the maps, or beside them to select none; dashed: none is better in both.`;
    const heads = this.measures.map(({ name, title, unit }) => {
      const sorted = by !== name ? "none" : down ? "descending" : "ascending";
      const next = () => this.state.set({ sort: [name, by === name && !down] });
      const node = button(title, `${title}: ${unit}`, next);
      return make("th", { scope: "col", "aria-sort": sorted }, node);
    });
    const rows = order.map((n) => {
      const { name, values } = this.rows[n];
      const cells = this.measures.map((one) => make("td", short(values[one.name])));
      const title = make("th", { scope: "row" }, name);
      const row = make("tr", { tabIndex: 0, place: n }, title, ...cells);
      row.onclick = () => this.open(n);
      row.onmouseenter = row.onfocus = () => this.state.set({ hot: n });
      row.onkeydown = (event) => event.key === "Enter" && this.open(n);
      row.classList.toggle("chosen", name === right);
      row.classList.toggle("faint", this.faint(n));
      return row;
    });
    const first = make("th", { scope: "col" }, "model");
    this.table.replaceChildren(make("thead", make("tr", first, ...heads)), make("tbody", ...rows));
    this.draw();
  }

  faint(n) {
    const { brushed } = this.state.values;
    return brushed.length > 0 && !brushed.includes(n);
  }

  draw() {
    const { hot } = this.state.values;
    for (const row of this.table.tBodies[0].rows) row.classList.toggle("hot", row.place === hot);
    for (const panel of this.panels) panel.chart.replaceChildren(...this.parts(panel));
  }

  /** Grid, front, models and brush of a panel. @returns {SVGElement[]} */
  parts(panel) {
    const { pair, measures } = panel;
    const { left, right, top, bottom } = BOX;
    const values = this.rows.map((row) => pair.map((name) => row.values[name]));
    const known = [...values.keys()].filter((n) => values[n].every(Number.isFinite));
    const [across, up] = [0, 1].map((at) => axis(known.map((n) => values[n][at])));
    const toX = (v) => left + across.share(v) * (right - left);
    const toY = (v) => bottom - up.share(v) * (bottom - top);
    panel.places = new Map(known.map((n) => [n, [toX(values[n][0]), toY(values[n][1])]]));
    const parts = [
      ...across.ticks.flatMap((v) => [
        make("line", { x1: toX(v), x2: toX(v), y1: top, y2: bottom }),
        make("text.across", short(v), { x: toX(v), y: bottom + 17 }),
      ]),
      ...up.ticks.flatMap((v) => [
        make("line", { x1: left, x2: right, y1: toY(v), y2: toY(v) }),
        make("text.up", short(v), { x: left - 6, y: toY(v) + 4 }),
      ]),
    ];
    const signs = measures.map((one) => one.direction);
    if (!signs.includes(0)) {
      const points = known.map((n) => values[n].map((v, at) => signs[at] * v));
      const best = front(points).map((at) => panel.places.get(known[at]));
      best.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
      parts.push(make("polyline.dashed", { points: best.join(" ") }));
    }
    for (const [n, place] of panel.places) parts.push(...this.mark(n, place));
    if (this.box?.panel === panel) {
      const [[a, b], [c, d]] = [this.box.start, this.box.end];
      parts.push(make("polygon", { points: [a, b, c, b, c, d, a, d].join(" ") }));
    }
    return parts;
  }

  /** A model, hollow where it was attacked, and its name where it is chosen. */
  mark(n, [x, y]) {
    const { name, color, marker } = this.rows[n];
    const { hot, right } = this.state.values;
    const chosen = n === hot || name === right;
    const fill = name.includes("/") ? "none" : color;
    const transform = `translate(${x} ${y}) scale(${chosen ? 6 : 4.5})`;
    const mark = make("path.mark", { d: MARKERS[marker], transform, fill, stroke: color });
    mark.classList.toggle("faint", this.faint(n));
    if (!chosen) return [mark];
    mark.classList.add("chosen");
    const [tag, side] = x > ACROSS / 2 ? ["text.name.up", -10] : ["text.name", 10];
    return [mark, make(tag, name, { x: x + side, y: Math.max(y - 8, 12) })];
  }
}
