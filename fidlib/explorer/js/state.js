/** What can be chosen: values at first, and which others make sense. */
import { three } from "./mixes.js";

export const SHOWN = ["all", "answer changed", "wrong", "triggers", "moved most"];
export const COLORED = ["class", "answer", "right or wrong", "distance moved"];
export const THEMES = ["auto", "light", "dark"];

const among = (options) => (v) => options.includes(v);
const number = (low, high) => (v) => Number.isFinite(v) && v >= low && v <= high;
const whole = (low, end) => (v) => Number.isInteger(v) && v >= low && v < end;
const list = (test) => (v) => Array.isArray(v) && v.every(test);
const tuple = (...tests) => {
  const all = (v) => v.length === tests.length && tests.every((test, n) => test(v[n]));
  return (v) => Array.isArray(v) && all(v);
};
const maybe = (test) => (v) => v === null || test(v);

/**
 * What can be chosen and shared: its value at first, and a test of others.
 * @param {Scene} scene @returns {Object<string, [any, (value: any) => boolean]>}
 */
export function choices({ about, names, count, images, labels, arrays, tables }) {
  const rows = [...Array(images).keys()];
  const right = rows.filter((i) => arrays["answers 0"][i] === labels[i]);
  const marked = names.slice(1).find((name) => name !== "scratch"); // which shares nothing
  const maps = about.maps.map((one) => one.name);
  const measure = among(about.measures.map((one) => one.name));
  const titles = tables.map((one) => one.title);
  const row = whole(0, count);
  const range = tuple(number(-1e9, 1e9), number(-1e9, 1e9), number(1e-9, 1e9));
  return {
    left: [names[0], among(names)],
    right: [marked ?? names.at(-1), among(names)],
    map: [maps[0], among(maps)],
    color: [COLORED[0], among(COLORED)],
    show: [SHOWN[0], among(SHOWN)],
    hidden: [[], list(among([...about.classes.keys(), "triggers"]))],
    selected: [[], list(row)],
    pin: [-1, whole(-1, count)],
    t: [1, number(0, 1)],
    film: [null, maybe(number(0, 1e3))],
    linked: [null, maybe(among([true, false]))],
    zoom: [null, maybe(tuple(range, range))],
    tool: ["lasso", among(["lasso", "move"])],
    theme: [THEMES[0], among(THEMES)],
    corners: [three([...right, ...rows], labels), tuple(row, row, row)],
    space: ["features", among(["features", "pixels"])],
    edge: [0, whole(0, 3)],
    along: [0.5, number(0, 1)],
    table: [titles[0], among(titles)],
    panels: [null, maybe(list(tuple(measure, measure)))],
    brushed: [[], list(whole(0, 1e6))],
    sort: [null, maybe(tuple(measure, among([true, false])))],
  };
}

/** All values as they are at first; a pointer's are no part of what is shared. */
export const beginning = (table) => ({
  ...Object.fromEntries(Object.entries(table).map(([name, [first]]) => [name, first])),
  ...{ hover: -1, mix: null, hot: -1 },
});

/** Those of some values that make sense. @param {any} values from an address, or a notebook */
export const sensible = (table, values) =>
  Object.fromEntries(
    Object.entries(values ?? {}).filter(([name, value]) => table[name]?.[1](value)),
  );
