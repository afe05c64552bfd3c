/** What mouse, fingers and keys do on a map. */
import { apart, point, spot, toggled } from "./dom.js";

const CLICK = 5; // CSS pixels: what moves less is a click
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const ZOOMS = { "+": 0.8, "=": 0.8, "-": 1.25 };

/** The next visible image in a direction of the screen, or the one there is. */
function next(maps, side, from, [dx, dy]) {
  const { xy, size } = maps.views[side];
  const [x, y] = from >= 0 ? point(xy, from) : [size / 2, size / 2];
  let [best, least] = [from, Infinity];
  for (const i of maps.rows) {
    const [u, v] = [xy[2 * i] - x, xy[2 * i + 1] - y];
    const ahead = u * dx + v * dy;
    const aside = Math.abs(u * dy - v * dx);
    const cost = from < 0 ? Math.hypot(u, v) : ahead + 2 * aside;
    if (cost < least && (from < 0 || (ahead > 0 && aside <= ahead))) [best, least] = [i, cost];
  }
  return best;
}

const ordered = (rows) => [...rows].sort((a, b) => a - b);

/** Choose the images in a lasso; with a modifier key, besides those chosen already. */
function choose(maps, side, path, event) {
  const { state, views } = maps;
  const { xy } = views[side];
  if (path.every((point) => apart(point, path[0]) < CLICK)) {
    const pin = maps.nearest(side, path[0]);
    state.set(pin < 0 ? { selected: [], pin } : { pin });
    return;
  }
  const shape = new Path2D(`M${path.join("L")}Z`);
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  const rows = maps.rows.filter((i) => context.isPointInPath(shape, ...point(xy, i), "evenodd"));
  const more = event.ctrlKey || event.metaKey || event.shiftKey;
  state.set({ selected: ordered(new Set([...(more ? state.values.selected : []), ...rows])) });
}

function press(maps, side, event) {
  const { state } = maps;
  const { hover, pin, selected, corners } = state.values;
  const { key } = event;
  const focus = hover >= 0 ? hover : pin;
  if (key in ARROWS) state.set({ hover: next(maps, side, focus, ARROWS[key]) });
  else if (key in ZOOMS) maps.aim(side, ZOOMS[key]);
  else if (key === "Enter") state.set({ pin: focus });
  else if (key === "Escape") state.set({ selected: [], pin: -1, hover: -1 });
  else if (focus < 0) return;
  else if ("abc".includes(key)) state.set({ corners: corners.with("abc".indexOf(key), focus) });
  else if (key === " ") state.set({ selected: ordered(toggled(selected, focus)) });
  else return;
  event.preventDefault();
  event.stopPropagation(); // a notebook has commands of its own on these keys
}

/** Let a map be pointed at, drawn on, moved and zoomed. */
export function listen(maps, side) {
  const { state } = maps;
  const view = maps.views[side];
  const canvas = view.top;
  const fingers = new Map();
  let start = null;

  /** Move a map with a finger; zoom it by how far two are apart. */
  const move = (id, at) => {
    const before = fingers.get(id);
    fingers.set(id, at);
    const other = [...fingers].find(([finger]) => finger !== id)?.[1];
    const shares = (a, b) => [0, 1].map((n) => (a[n] - b[n]) / view.size);
    const factor = other && apart(before, other) / (apart(at, other) || 1);
    if (other) maps.aim(side, factor, shares(other, [0, 0]));
    else maps.aim(side, 1, [0.5, 0.5], shares(at, before));
  };

  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    start = spot(event, canvas);
    fingers.set(event.pointerId, start);
    const moving = state.values.tool === "move" || event.button === 1 || fingers.size > 1;
    view.lasso = moving ? null : [start];
  };
  canvas.onpointermove = (event) => {
    const at = spot(event, canvas);
    if (view.lasso) {
      view.lasso.push(at);
      maps.overlay();
    } else if (fingers.has(event.pointerId)) move(event.pointerId, at);
    else state.set({ hover: maps.nearest(side, at) });
  };
  canvas.onpointerup = (event) => {
    const { lasso } = view;
    const click = fingers.size === 1 && apart(spot(event, canvas), start) < CLICK;
    canvas.onpointercancel(event);
    if (lasso) choose(maps, side, lasso, event);
    else if (click) state.set({ pin: maps.nearest(side, start) });
  };
  canvas.onpointercancel = (event) => {
    fingers.delete(event.pointerId);
    view.lasso = null;
    maps.overlay();
  };
  canvas.onpointerleave = () => view.lasso || state.set({ hover: -1 });
  canvas.onwheel = (event) => {
    // Otherwise the page scrolls; a trackpad's pinch comes with ctrlKey.
    if (!event.ctrlKey && state.values.tool !== "move") return;
    event.preventDefault();
    const factor = Math.exp(event.deltaY * (event.ctrlKey ? 0.01 : 0.0015));
    maps.aim(side, factor, spot(event, canvas, 1));
  };
  canvas.ondblclick = () => maps.fit();
  canvas.onkeydown = (event) => press(maps, side, event);
}
