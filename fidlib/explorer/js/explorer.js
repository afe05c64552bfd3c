/** The explorer: its controls, its state, and where its parts stand. */
import { Scene, State } from "./data.js";
import { button, chosen, download, group, make, put, slider, toggled, toggles } from "./dom.js";
import { Maps, RIGHT, WRONG } from "./maps.js";
import { Models } from "./models.js";
import { Planes } from "./planes.js";
import { Point, Selection } from "./point.js";
import { COLORED, SHOWN, THEMES, beginning, choices, sensible } from "./state.js";

/** Controls above the maps. */
function controls(scene, state, maps) {
  const bound = (name, title, options) => make("label", title, chosen(state, name, title, options));
  const linked = button("same axes", "both maps show the same part of the plane", () =>
    state.set({ linked: !maps.linked, zoom: null }),
  );
  state.now("map left right linked", () => {
    linked.disabled = !scene.map(state.values).common;
    linked.ariaPressed = maps.linked;
  });
  const names = scene.about.maps.map((one) => one.name);
  return make(
    "div.bar",
    names.length > 1 && bound("map", "map", names),
    bound("color", "colour", COLORED),
    bound("show", "show", SHOWN),
    toggles(state, "tool", "what dragging does", [
      ["lasso", "lasso", "dragging selects images"],
      ["move", "move", "dragging moves the map, the wheel zooms"],
    ]),
    linked,
  );
}

/** A slider from the left model's places to the right's, and one through its training. */
function sliders(scene, state) {
  const way = slider("from the left model's places to the right model's", {
    ...{ max: 1, step: 0.01, className: "way" },
    oninput: () => state.set({ t: +way.value, film: null }),
  });
  const film = slider("through the training of the right model", {
    ...{ step: 0.05, className: "film" },
    oninput: () => state.set({ film: +film.value, t: 1 }),
  });
  const epoch = make("small");
  state.on("right", (changed) => changed.includes("film") || state.set({ film: null }));
  state.now("t film left right map", () => {
    const { values } = state;
    const [a, b] = scene.pair(values);
    const epochs = scene.about.models[b].film;
    put(way, { value: values.t, disabled: a === b || !scene.map(values).common });
    const last = (epochs?.length ?? 2) - 1;
    put(film, { max: last, value: values.film ?? last, disabled: !epochs });
    epoch.textContent = epochs ? `epoch ${+epochs[Math.round(film.value)].toFixed(2)}` : "not kept";
  });
  const labels = [make("label", "left", way, "right"), make("label", "training", film, epoch)];
  return make("div.bar.sliders", ...labels);
}

/** Models that differ from one in the strength of their last attack alone, by strength. */
function family(names, name) {
  const stem = name.match(/^.*:(?=[^/:]*$)/)?.[0];
  const strength = (other) => (stem && other.startsWith(stem) ? +other.slice(stem.length) : NaN);
  const others = names.filter((other) => !Number.isNaN(strength(other)));
  return others.sort((a, b) => strength(a) - strength(b));
}

/** A side's model; where an attack has strengths, a slider over them. */
function head(scene, state, side) {
  const pick = chosen(state, side, `${side} model`, scene.names);
  const strength = slider("strength of the attack", {
    className: "strength",
    oninput: () => state.set({ [side]: family(scene.names, state.values[side])[strength.value] }),
  });
  const label = make("label", "strength", strength);
  const text = make("small");
  state.now(side, () => {
    const name = state.values[side];
    const names = family(scene.names, name);
    label.hidden = names.length < 2;
    put(strength, { max: names.length - 1, value: names.indexOf(name) });
    const { values } = scene.about.models[scene.names.indexOf(name)];
    const shares = { accuracy: values.accuracy, triggers: values.trigger_accuracy };
    const known = Object.entries(shares).filter(([, value]) => Number.isFinite(value));
    text.textContent = known.map(([what, v]) => `${what} ${(100 * v).toFixed(1)} %`).join(" · ");
  });
  return make("div.bar", pick, label, text);
}

const dot = (background) => make("span.dot", { style: `background:${background}` });

/** Chips that show and hide classes, and what the colours say. */
function chips(scene, state) {
  const { classes, colors, viridis, triggers } = scene.about;
  const keys = [...classes.keys(), ...(triggers ? ["triggers"] : [])];
  const nodes = keys.map((key) => {
    const name = classes[key] ?? "× triggers";
    const chip = button(name, `show or hide ${name}; double-click: this one alone`, () =>
      state.set({ hidden: toggled(state.values.hidden, key) }),
    );
    chip.ondblclick = () => state.set({ hidden: keys.filter((other) => other !== key) });
    if (key in classes) chip.prepend(dot(colors[key]));
    state.now("hidden", () => (chip.ariaPressed = !state.values.hidden.includes(key)));
    return chip;
  });
  const ramp = make("span.ramp", { style: `background:linear-gradient(90deg,${viridis})` });
  const right = make("span.legend.right", dot(RIGHT), "right", dot(WRONG), "wrong");
  const moved = make("span.legend.moved", "little", ramp, "far");
  return group("div.chips", "classes shown", ...nodes, right, moved);
}

/** Both maps with their titles, as one picture. */
function picture({ left, right }, views) {
  const { width } = views.left.base;
  const [gap, top] = [12, 30].map((v) => (v * width) / views.left.size);
  const canvas = make("canvas", { width: 2 * width + 3 * gap, height: width + top + gap });
  const context = canvas.getContext("2d");
  const { color, backgroundColor } = getComputedStyle(views.left.top.closest(".fx"));
  context.fillStyle = backgroundColor;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = color;
  context.font = `600 ${gap}px system-ui, sans-serif`;
  [left, right].forEach((name, n) => {
    const { base } = [views.left, views.right][n];
    const x = gap + n * (width + gap);
    context.fillText(name, x, top - 0.75 * gap);
    context.drawImage(base, x, top);
  });
  canvas.toBlob((blob) => download("explorer.png", blob), "image/png");
}

/** Keep the state where it is shared, and follow it there. */
function shared(state, table, model) {
  let timer;
  state.on(Object.keys(table).join(" "), () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const entries = Object.keys(table).map((name) => [name, state.values[name]]);
      model.set("state", Object.fromEntries(entries));
      model.save_changes();
    }, 150);
  });
  model.on("change:state", () => state.set(sensible(table, model.get("state"))));
}

/** What anywidget calls, and a page with a stand-in for the kernel's model. */
async function render({ model, el }) {
  const scene = await Scene.read(model.get("about"), model.get("blob"));
  const table = choices(scene);
  const state = new State({ ...beginning(table), ...sensible(table, model.get("state")) });
  const heads = { left: head(scene, state, "left"), right: head(scene, state, "right") };
  const maps = new Maps(scene, state, heads);
  const point = new Point(scene, state);
  const selection = new Selection(scene, state);
  const corner = make(
    "div.bar",
    button("PNG", "save both maps as a picture", () => picture(state.values, maps.views)),
    button("reset", "as it was at first", () => state.set(beginning(table))),
    make("label", "theme", chosen(state, "theme", "theme", THEMES)),
  );
  const note = make("p.note.soft");
  state.now("map", () => (note.textContent = scene.map(state.values).note));
  const planes = new Planes(scene, state, model);
  const models = new Models(scene, state);
  const frame = make(
    "div.frame",
    make("header.bar", make("h2", scene.about.title), corner),
    controls(scene, state, maps),
    sliders(scene, state),
    make("div.maps", ...maps.panels, point.node),
    chips(scene, state),
    selection.node,
    note,
    planes.node,
    models.node,
    point.spoken,
  );
  const root = make("div.fx", frame);
  el.append(root);
  for (const name of ["theme", "tool", "color"])
    state.now(name, () => (root.dataset[name] = state.values[name]));
  root.ontransitionend = () => maps.repaint(); // its ink: by the system, a notebook or a choice
  shared(state, table, model);
  const resized = new ResizeObserver(() => state.set({ size: root.clientWidth }));
  resized.observe(root);
  Object.assign(root, { scene, state, maps, selection, planes, models });
  el.dataset.ready = "true";
  return () => {
    resized.disconnect();
    URL.revokeObjectURL(scene.url);
  };
}

export default { render };
