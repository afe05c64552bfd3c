/** Mixes of three images in feature space, where a head is all there is to compute. */

/** Scores of a mix of images, whose head is affine. @param {ArrayLike<number>[]} logits */
export const blended = (logits, weights) =>
  Array.from(logits[0], (_, k) => weights.reduce((sum, w, n) => sum + w * logits[n][k], 0));

/** Classes of the cells of a triangle in feature space: cell (u, v) at v * side + u. */
export function cells(logits, side) {
  const found = new Uint16Array(side * side);
  const classes = logits[0].length;
  for (let v = 0; v < side; v++) {
    for (let u = 0; u + v < side; u++) {
      const [b, c] = [(u + 0.5) / side, (v + 0.5) / side];
      let [best, top] = [0, -Infinity];
      for (let k = 0; k < classes; k++) {
        const score = (1 - b - c) * logits[0][k] + b * logits[1][k] + c * logits[2][k];
        if (score > top) [best, top] = [k, score];
      }
      found[v * side + u] = best;
    }
  }
  return found;
}

/** Share of a triangle's cells that differ. */
export function differing(one, other, side) {
  let count = 0;
  for (let v = 0; v < side; v++)
    for (let u = 0; u + v < side; u++) count += one[v * side + u] !== other[v * side + u];
  return (2 * count) / (side * (side + 1));
}

/** Three images of different classes, where there are so many. @returns {number[]} */
export function anyThree({ labels, images }) {
  const found = [];
  for (let tries = 0; found.length < 3; tries++) {
    const i = Math.floor(Math.random() * images);
    const fresh = found.every((other) => labels[other] !== labels[i]);
    if (fresh || (tries > 99 && !found.includes(i))) found.push(i);
  }
  return found;
}
