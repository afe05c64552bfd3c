/** The explorer: its controls, its state, and where its parts stand. */
import { Scene, State, button, choice, download, joined, make, slider } from "./data.js";
import { COLORED, Maps, SHOWN } from "./maps.js";
import { Models } from "./models.js";
import { Planes } from "./planes.js";
import { Point, Selection } from "./point.js";

const PASSING = new Set(["hover", "mix", "dark", "size"]); // no part of a state that is shared

/** What is chosen at first: a host and the first other model, all images. */
function beginning(scene) {
  const { about, names } = scene;
  const right = Array.from({ length: scene.images }, (_, i) => i).filter(
    (i) => scene.answers(0)[i] === scene.labels[i],
  );
  const marked = names.slice(1).find((name) => name !== "scratch"); // which shares nothing
  const corners = [];
  for (const i of [...right, 0, 1, 2]) {
    const fresh = corners.every((other) => scene.labels[other] !== scene.labels[i]);
    if (corners.length < 3 && (fresh || i < 3)) corners.push(i);
  }
  return {
    ...{ left: names[0], right: marked ?? names.at(-1), map: about.maps[0].name },
    ...{ color: "class", show: "all", hidden: [], selected: [], hover: -1, pin: -1 },
    ...{ t: 1, film: null, linked: true, zoom: null, tool: "lasso", theme: "auto" },
    ...{ corners, space: "features", edge: 0, along: 0.5, mix: null },
    ...{ table: 0, panels: null, brushed: [], sort: null, dark: false, size: 0 },
  };
}

/** Values of a shared state that make sense here. */
function sensible(scene, values) {
  const known = beginning(scene);
  const rows = (list) => list.every((i) => Number.isInteger(i) && i >= 0 && i < scene.count);
  const fits = {
    left: (v) => scene.names.includes(v),
    right: (v) => scene.names.includes(v),
    map: (v) => scene.about.maps.some((one) => one.name === v),
    color: (v) => COLORED.includes(v),
    show: (v) => SHOWN.includes(v),
    selected: rows,
    corners: (v) => v.length === 3 && rows(v),
    pin: (v) => v === -1 || rows([v]),
    film: (v) => v === null || v >= 0,
  };
  return Object.fromEntries(
    Object.entries(values).filter(
      ([name, value]) => name in known && !PASSING.has(name) && (fits[name]?.(value) ?? true),
    ),
  );
}

/** Controls above the maps. */
function controls(scene, state) {
  const { about } = scene;
  const bound = (name, title, options) => {
    const node = choice(title, options, (value) => state.set({ [name]: value }));
    const show = () => (node.value = state.values[name]);
    state.on(name, show);
    show();
    return make("label", title, node);
  };
  const pressed = (name, value, text, title) => {
    const node = button(text, title, () => state.set({ [name]: value ?? !state.values[name] }));
    const show = () => {
      const one = about.maps.find((layer) => layer.name === state.values.map);
      node.disabled = name === "linked" && !one.common;
      node.setAttribute("aria-pressed", String(state.values[name] === (value ?? true)));
    };
    state.on("map", show);
    state.on(name, show);
    show();
    return node;
  };
  const tools = joined(
    "what dragging does",
    pressed("tool", "lasso", "lasso", "dragging selects images"),
    pressed("tool", "move", "move", "dragging moves the map, the wheel zooms"),
  );
  const maps = about.maps.map((one) => one.name);
  return make(
    "div.bar",
    ...(maps.length > 1 ? [bound("map", "map", maps)] : []),
    bound("color", "colour", COLORED),
    bound("show", "show", SHOWN),
    tools,
    pressed("linked", null, "same axes", "both maps show the same part of the plane"),
  );
}

/** A slider from the left model's places to the right's, and one through its training. */
function sliders(scene, state) {
  const way = slider("from the left model's places to the right model's", {
    ...{ min: 0, max: 1, step: 0.01, className: "way" },
    oninput: () => state.set({ t: +way.value, film: null }),
  });
  const film = slider("through the training of the right model", {
    ...{ min: 0, step: 0.05, className: "film" },
    oninput: () => state.set({ film: +film.value, t: 1 }),
  });
  const from = make("span");
  const to = make("span");
  const epoch = make("small");
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "▶";
  };
  const play = button("▶", "play the training", () => {
    if (timer) return stop();
    play.textContent = "❚❚";
    if (state.values.film === null || state.values.film >= +film.max) state.set({ film: 0, t: 1 });
    timer = setInterval(() => {
      const at = Math.min(+film.max, state.values.film + 0.1);
      state.set({ film: at });
      if (at >= +film.max || !film.isConnected) stop();
    }, 60);
  });
  const show = () => {
    const { values } = state;
    const model = scene.about.models[scene.index(values.right)];
    const layer = scene.about.maps.find((one) => one.name === values.map);
    [from.textContent, to.textContent] = [values.left, values.right];
    way.value = values.t;
    way.disabled = !layer.common || values.left === values.right;
    const epochs = model.film;
    if (!epochs && timer) stop();
    film.max = (epochs?.length ?? 2) - 1;
    film.value = values.film ?? film.max;
    film.disabled = play.disabled = !epochs;
    film.title = epochs
      ? "through the training of the right model"
      : "no outputs were kept while it was trained";
    const at = epochs?.[Math.round(values.film ?? epochs.length - 1)];
    epoch.textContent = epochs ? `epoch ${+at.toFixed(2)}` : "not kept";
  };
  state.on("t film left right map", show);
  state.on("right", (changed) => changed.includes("film") || state.set({ film: null }));
  show();
  return make(
    "div.bar.sliders",
    make("label", from, way, to),
    make("label", "training", play, film, epoch),
  );
}

/** A side's model; where an attack has strengths, a slider over them. */
function head(scene, state, side) {
  const pick = choice(`${side} model`, scene.names, (value) => state.set({ [side]: value }));
  const strength = slider("strength of the attack", {
    ...{ min: 0, step: 1, className: "strength" },
    oninput: () => state.set({ [side]: family()[+strength.value] }),
  });
  const label = make("label", "strength", strength);
  const told = make("small");
  const family = () => {
    const [stem, own] = state.values[side].split(/:(?=[^/:]*$)/);
    if (own === undefined) return [];
    const all = scene.names.filter((name) => name.startsWith(`${stem}:`));
    const by = (name) => Number(name.slice(stem.length + 1));
    return all.filter((name) => !Number.isNaN(by(name))).sort((a, b) => by(a) - by(b));
  };
  const show = () => {
    pick.value = state.values[side];
    const all = family();
    label.hidden = all.length < 2;
    strength.max = all.length - 1;
    strength.value = all.indexOf(state.values[side]);
    const { values } = scene.about.models[scene.index(state.values[side])];
    const said = [
      ["accuracy", values.accuracy],
      ["triggers", values.trigger_accuracy],
    ].filter(([, value]) => value !== null && value !== undefined);
    told.textContent = said.map(([name, v]) => `${name} ${(100 * v).toFixed(1)} %`).join(" · ");
  };
  state.on(side, show);
  show();
  return make("div.bar", pick, label, told);
}

/** Chips that show and hide classes, and what the colours say. */
function chips(scene, state) {
  const { about } = scene;
  const node = make("div.chips", { role: "group", "aria-label": "classes shown" });
  const keys = [...about.classes.keys()];
  if (scene.count > scene.images) keys.push("triggers");
  for (const key of keys) {
    const name = key === "triggers" ? "× triggers" : about.classes[key];
    const toggle = () => {
      const hidden = new Set(state.values.hidden);
      if (!hidden.delete(key)) hidden.add(key);
      state.set({ hidden: [...hidden] });
    };
    const chip = button("", `show or hide ${name}; double-click: this one alone`, toggle);
    chip.ondblclick = () => state.set({ hidden: keys.filter((other) => other !== key) });
    const dot = make("span.dot");
    if (key !== "triggers") chip.append(dot);
    chip.append(make("span", name));
    const show = () => {
      chip.setAttribute("aria-pressed", String(!state.values.hidden.includes(key)));
      const plain = ["class", "answer"].includes(state.values.color);
      dot.style.background = plain ? about.colors[key] : "var(--line)";
    };
    state.now("hidden color", show);
    node.append(chip);
  }
  const legend = make("span.legend.soft");
  const show = () => {
    const { color } = state.values;
    const [right, wrong] = ["#3f90da", "#e76300"].map((background) => {
      const dot = make("span.dot");
      dot.style.background = background;
      return dot;
    });
    const ramp = make("span.ramp");
    ramp.style.background = `linear-gradient(90deg, ${about.viridis.join(", ")})`;
    if (color === "right or wrong") legend.replaceChildren(right, "right", wrong, "wrong");
    else if (color === "distance moved") legend.replaceChildren("little", ramp, "far");
    else legend.replaceChildren();
  };
  state.now("color", show);
  node.append(legend);
  return node;
}

/** Both maps with their titles, as one picture. */
function picture(scene, state, maps) {
  const { left, right } = maps.views;
  const ratio = left.base.width / left.size;
  const gap = 12 * ratio;
  const top = 30 * ratio;
  const canvas = make("canvas", {
    width: 2 * left.base.width + 3 * gap,
    height: left.base.height + top + gap,
  });
  const context = canvas.getContext("2d");
  context.fillStyle = state.values.dark ? "#15171c" : "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
  [left, right].forEach((view, n) => {
    const x = gap + n * (left.base.width + gap);
    context.fillStyle = maps.ink();
    context.fillText(state.values[n ? "right" : "left"], x, top - 9 * ratio);
    for (const layer of [view.base, view.top]) context.drawImage(layer, x, top);
    context.strokeStyle = "#8888";
    context.strokeRect(x, top, view.base.width, view.base.height);
  });
  canvas.toBlob((blob) => download("explorer.png", blob), "image/png");
}

/** Follow the system's, or the notebook's, choice of light or dark. */
function themed(root, state) {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const show = () => {
    const lab = document.body.dataset.jpThemeLight;
    const own = lab === undefined ? system.matches : lab === "false";
    const { theme } = state.values;
    const dark = theme === "auto" ? own : theme === "dark";
    root.dataset.theme = dark ? "dark" : "light";
    state.set({ dark });
  };
  system.addEventListener("change", show);
  const watcher = new MutationObserver(show);
  watcher.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  state.now("theme", show);
  return () => {
    system.removeEventListener("change", show);
    watcher.disconnect();
  };
}

/** What anywidget calls, and a page with a stand-in for the kernel's model. */
async function render({ model, el }) {
  const scene = await Scene.read(model.get("about"), model.get("blob"));
  const state = new State(beginning(scene));
  state.set(sensible(scene, model.get("state") ?? {}));
  const heads = { left: head(scene, state, "left"), right: head(scene, state, "right") };
  const maps = new Maps(scene, state, heads);
  const point = new Point(scene, state);
  const tools = [
    button("CSV", "save what is selected as a table", () =>
      download("selected.csv", new Blob([selection.csv()], { type: "text/csv" })),
    ),
    button("clear", "select nothing", () => state.set({ selected: [] })),
  ];
  const selection = new Selection(scene, state, tools);
  const theme = button("◐", "light or dark", () =>
    state.set({ theme: state.values.dark ? "light" : "dark" }),
  );
  const corner = make(
    "div.bar",
    button("PNG", "save both maps as a picture", () => picture(scene, state, maps)),
    button("reset", "as it was at first", () => {
      const { dark, size } = state.values;
      state.set({ ...beginning(scene), dark, size });
      maps.fit();
    }),
    theme,
  );
  const note = make("p.note.soft");
  const noted = () =>
    (note.textContent = scene.about.maps.find((one) => one.name === state.values.map).note);
  state.now("map", noted);
  const planes = new Planes(scene, state, model);
  const models = new Models(scene, state);
  const frame = make(
    "div.frame",
    make("header.bar", make("h2", scene.about.title), corner),
    controls(scene, state),
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
  const forget = themed(root, state);

  let timer;
  let given = model.get("state");
  state.on("*", (changed) => {
    if (changed.every((name) => PASSING.has(name))) return;
    clearTimeout(timer);
    timer = setTimeout(() => {
      given = Object.fromEntries(Object.entries(state.values).filter(([n]) => !PASSING.has(n)));
      model.set("state", given);
      model.save_changes();
    }, 150);
  });
  model.on("change:state", () => {
    if (model.get("state") !== given) state.set(sensible(scene, model.get("state")));
  });
  const resized = new ResizeObserver(() => state.set({ size: root.clientWidth }));
  resized.observe(root);
  if (!state.values.zoom) maps.fit();
  Object.assign(root, { scene, state, maps, selection, planes, models });
  el.dataset.ready = "true";
  return () => {
    forget();
    resized.disconnect();
    URL.revokeObjectURL(scene.url);
  };
}

export default { render };
