/** Many dots and crosses, put straight into the pixels of a picture: thousands in few ms. */
import { rgb } from "./data.js";

const masks = new Map();
const parts = new Map();

/** How much of each pixel a dot, or a cross, covers. */
function mask(radius, cross, ratio) {
  const key = `${radius} ${cross} ${ratio}`;
  if (!masks.has(key)) {
    const side = Math.ceil((2 * radius + 2) * ratio);
    const context = new OffscreenCanvas(side, side).getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, side / 2, side / 2);
    context.lineWidth = 1.5;
    if (cross) {
      for (const turn of [1, -1]) {
        context.moveTo(-radius, -turn * radius);
        context.lineTo(radius, turn * radius);
      }
      context.stroke();
    } else {
      context.arc(0, 0, radius, 0, 7);
      context.fill();
    }
    const { data } = context.getImageData(0, 0, side, side);
    masks.set(key, {
      side,
      cover: Float32Array.from({ length: side * side }, (_, q) => data[4 * q + 3] / 255),
    });
  }
  return masks.get(key);
}

/** A transparent picture to which dots are added. */
export class Dots {
  /** @param {number} size CSS pixels a side */
  constructor(size) {
    this.ratio = window.devicePixelRatio || 1;
    this.side = Math.round(size * this.ratio);
    this.size = size;
    this.picture = new ImageData(this.side, this.side);
  }

  /** @param {string} color @param {number} alpha in [0, 1] */
  add(x, y, color, alpha, radius, cross) {
    if (!parts.has(color)) parts.set(color, rgb(color));
    const [red, green, blue] = parts.get(color);
    const { side, cover } = mask(radius, cross, this.ratio);
    const [left, top] = [x, y].map((v) => Math.round(v * this.ratio - side / 2));
    if (left < 0 || top < 0 || left + side > this.side || top + side > this.side) return;
    const { data } = this.picture;
    for (let q = 0; q < cover.length; q++) {
      const own = cover[q] * alpha;
      if (!own) continue;
      const at = 4 * ((top + Math.floor(q / side)) * this.side + left + (q % side));
      const under = (data[at + 3] / 255) * (1 - own);
      const whole = own + under;
      data[at] = (red * own + data[at] * under) / whole;
      data[at + 1] = (green * own + data[at + 1] * under) / whole;
      data[at + 2] = (blue * own + data[at + 2] * under) / whole;
      data[at + 3] = 255 * whole;
    }
  }

  /** Lay the dots over what a canvas has. */
  draw(context) {
    const layer = new OffscreenCanvas(this.side, this.side);
    layer.getContext("2d").putImageData(this.picture, 0, 0);
    context.drawImage(layer, 0, 0, this.size, this.size);
  }
}
