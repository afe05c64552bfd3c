/** Scores that are affine, in the plane of two features or of three images' mixes. */

/** Probabilities of scores. @param {ArrayLike<number>} logits @returns {number[]} */
export function softmax(logits) {
  const top = Math.max(...logits);
  const parts = Array.from(logits, (score) => Math.exp(score - top));
  const sum = parts.reduce((a, b) => a + b, 0);
  return parts.map((part) => part / sum);
}

/** Scores of a mix of images, whose head is affine. @param {ArrayLike<number>[]} logits */
export const blended = (logits, weights) =>
  Array.from(logits[0], (_, k) => weights.reduce((sum, w, n) => sum + w * logits[n][k], 0));

/** The class of the largest score. @param {ArrayLike<number>} head K times x, y and 1 */
export function region(head, x, y) {
  let best = 0;
  let top = -Infinity;
  for (let k = 0; 3 * k < head.length; k++) {
    const score = head[3 * k] * x + head[3 * k + 1] * y + head[3 * k + 2];
    if (score > top) [best, top] = [k, score];
  }
  return best;
}

/** Classes of the cells of a triangle in feature space: cell (u, v) at v * side + u. */
export function cells([a, b, c], side) {
  const head = Array.from(a).flatMap((z, k) => [b[k] - z, c[k] - z, z]);
  return Uint16Array.from({ length: side * side }, (_, q) => {
    const [u, v] = [q % side, Math.floor(q / side)];
    return u + v < side ? region(head, (u + 0.5) / side, (v + 0.5) / side) : 0;
  });
}

/** Share of a triangle's cells that differ; all others have class 0. */
export const differing = (one, other, side) =>
  (2 * one.reduce((count, k, q) => count + (k !== other[q]), 0)) / (side * (side + 1));

/** The first three rows of different classes, where there are so many. @returns {number[]} */
export function three(rows, labels) {
  const first = new Map();
  for (const i of rows) if (!first.has(labels[i])) first.set(labels[i], i);
  return [...new Set([...first.values(), ...rows])].slice(0, 3);
}
