/** A page without a kernel: its data is in it, its state in the address. */
const text = (id) => document.getElementById(id).textContent;

/** The state that the address carries; an address that makes no sense has none. */
function addressed() {
  try {
    return JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}");
  } catch {
    return {};
  }
}

const held = {
  about: JSON.parse(text("about")),
  blob: Uint8Array.from(atob(text("blob")), (letter) => letter.charCodeAt(0)),
  state: addressed(),
};
const listeners = {};
const model = {
  get: (name) => held[name],
  set: (name, value) => (held[name] = value),
  save_changes: () =>
    history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(held.state))}`),
  on: (name, listener) => (listeners[name] = listener),
};
window.addEventListener("hashchange", () => {
  held.state = addressed();
  listeners["change:state"]?.();
});
const el = document.getElementById("explorer");
explorer.render({ model, el });
// A page that shows this one in a frame learns how high it is, once it is drawn.
new ResizeObserver(() => {
  const { height } = document.body.getBoundingClientRect();
  if (el.childElementCount) window.parent.postMessage({ explorer: Math.ceil(height) + 1 }, "*");
}).observe(document.body);
