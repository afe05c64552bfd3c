/** What mouse, fingers and keys do on a map. */
import { capture, spot } from "./data.js";

const CLICK = 5; // CSS pixels: what moves less is a click
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The middle of the fingers on a map, and how far they are apart. */
function grip(fingers) {
  const points = [...fingers.values()];
  const middle = [0, 1].map((n) => points.reduce((sum, p) => sum + p[n], 0) / points.length);
  const apart =
    points.length > 1 ? Math.hypot(...[0, 1].map((n) => points[0][n] - points[1][n])) : 1;
  return { middle, apart };
}

/** The next visible image in a direction of the screen, or the one there is. */
function next(maps, side, [dx, dy]) {
  const { xy, size } = maps.views[side];
  const { values } = maps.state;
  const from = values.hover >= 0 ? values.hover : values.pin;
  const [x, y] = from >= 0 ? [xy[2 * from], xy[2 * from + 1]] : [size / 2, size / 2];
  let [best, least] = [from, Infinity];
  for (let i = 0; i < maps.scene.count; i++) {
    const [u, v] = [xy[2 * i] - x, xy[2 * i + 1] - y];
    const ahead = u * dx + v * dy;
    const aside = Math.abs(u * dy - v * dx);
    const cost = ahead + 2 * aside;
    if (i === from || !maps.visible[i] || cost >= least) continue;
    if (from < 0 || (ahead > 0 && aside <= ahead)) [best, least] = [i, Math.abs(cost)];
  }
  return best;
}

/** Choose the images in a lasso; with a modifier key, besides those chosen already. */
function choose(maps, side, path, event) {
  const { state } = maps;
  const away = Math.max(...path.map(([x, y]) => Math.hypot(x - path[0][0], y - path[0][1])));
  if (away < CLICK) {
    const hit = maps.nearest(side, ...path[0]);
    state.set(hit < 0 ? { selected: [], pin: -1 } : { pin: hit });
    maps.overlay();
    return;
  }
  const found = new Set(maps.enclosed(side, path));
  const more = event.ctrlKey || event.metaKey || event.shiftKey;
  for (const i of more ? state.values.selected : []) found.add(i);
  state.set({ selected: [...found].sort((a, b) => a - b) });
  maps.overlay();
}

function press(maps, side, event) {
  const { state } = maps;
  const { values } = state;
  const focus = values.hover >= 0 ? values.hover : values.pin;
  if (event.key in ARROWS) state.set({ hover: next(maps, side, ARROWS[event.key]) });
  else if (event.key === "Enter") state.set({ pin: focus });
  else if (event.key === "Escape") state.set({ selected: [], pin: -1, hover: -1 });
  else if (event.key === "+" || event.key === "=") maps.zoomed(side, 0.8);
  else if (event.key === "-") maps.zoomed(side, 1.25);
  else if ("abc".includes(event.key) && focus >= 0) {
    state.set({
      corners: values.corners.map((i, n) => (n === "abc".indexOf(event.key) ? focus : i)),
    });
  } else if (event.key === " " && focus >= 0) {
    const selected = new Set(values.selected);
    if (!selected.delete(focus)) selected.add(focus);
    state.set({ selected: [...selected].sort((a, b) => a - b) });
  } else return;
  event.preventDefault();
  event.stopPropagation(); // a notebook has commands of its own on these keys
}

/** Let a map be pointed at, drawn on, moved and zoomed. */
export function listen(maps, side) {
  const view = maps.views[side];
  const canvas = view.top;
  const fingers = new Map();
  let held = null; // how a map was gripped, while it is moved

  const move = () => {
    const { middle, apart } = grip(fingers);
    maps.aim(side, (range) => {
      const unit = (2 * range.half) / view.size;
      range.x -= (middle[0] - held.middle[0]) * unit;
      range.y += (middle[1] - held.middle[1]) * unit;
      range.half *= fingers.size > 1 ? held.apart / (apart || 1) : 1;
    });
    held = { middle, apart };
  };

  canvas.onpointerdown = (event) => {
    capture(canvas, event);
    fingers.set(event.pointerId, spot(event, canvas));
    const moving = maps.state.values.tool === "move" || event.button === 1 || fingers.size > 1;
    view.lasso = moving ? null : [spot(event, canvas)];
    held = moving ? grip(fingers) : null;
    view.start = spot(event, canvas);
  };
  canvas.onpointermove = (event) => {
    const at = spot(event, canvas);
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, at);
    if (held) move();
    else if (view.lasso) {
      view.lasso.push(at);
      maps.overlay();
    } else maps.state.set({ hover: maps.nearest(side, ...at) });
  };
  canvas.onpointerup = (event) => {
    const path = view.lasso;
    const still = Math.hypot(...spot(event, canvas).map((v, n) => v - view.start?.[n])) < CLICK;
    const clicked = held && fingers.size === 1 && still;
    fingers.delete(event.pointerId);
    view.lasso = null;
    held = held && fingers.size ? grip(fingers) : null;
    if (path) choose(maps, side, path, event);
    else if (clicked) maps.state.set({ pin: maps.nearest(side, ...view.start) });
  };
  canvas.onpointercancel = (event) => {
    fingers.delete(event.pointerId);
    view.lasso = held = null;
    maps.overlay();
  };
  canvas.onpointerleave = () => {
    if (!view.lasso) maps.state.set({ hover: -1 });
  };
  canvas.onwheel = (event) => {
    // Otherwise the page scrolls; a trackpad's pinch comes with ctrlKey.
    if (!event.ctrlKey && maps.state.values.tool !== "move") return;
    event.preventDefault();
    const at = spot(event, canvas).map((v) => v / view.size);
    maps.zoomed(side, Math.exp(event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), at);
  };
  canvas.ondblclick = () => maps.fit();
  canvas.onkeydown = (event) => press(maps, side, event);
}
