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
// A page that shows this one in a frame learns how high it is.
new ResizeObserver(() =>
  window.parent.postMessage({ explorer: document.body.offsetHeight }, "*"),
).observe(document.body);
explorer.render({ model, el: document.getElementById("explorer") });
