/** Square maps of attention: a pixel for each pair of tokens; the style sheet makes them as large as they are to be. */

import { h } from "./dom.js";

/** Weights are small numbers mostly: this brings out the differences between them. */
const GAMMA = 0.7;

/**
 * How dark a weight is drawn, from 0 to 1.
 * @param {number} weight
 */
export function shade(weight) {
  return Math.min(1, Math.max(0, weight)) ** GAMMA;
}

/**
 * A canvas that shows `matrix` in its own text colour. Call `paint` again when the colours have changed.
 * @param {string} name for screen readers; empty when it only adorns something that has a name
 * @returns {{element: HTMLCanvasElement, paint: (matrix?: number[][]) => void}}
 */
export function createHeatmap(name) {
  const element = h("canvas", name ? { class: "heatmap", role: "img", "aria-label": name } : { class: "heatmap", "aria-hidden": "true" });
  let shown = null;

  function paint(matrix = shown) {
    shown = matrix;
    if (!matrix) return;
    const size = matrix.length;
    element.width = element.height = size;
    const context = element.getContext("2d", { willReadFrequently: true }); // small, and only ever written pixel by pixel
    const [red, green, blue] = colourOf(element);
    const image = context.createImageData(size, size);
    for (const [query, row] of matrix.entries()) {
      for (const [key, weight] of row.entries()) {
        const at = 4 * (query * size + key);
        image.data[at] = red;
        image.data[at + 1] = green;
        image.data[at + 2] = blue;
        image.data[at + 3] = Math.round(255 * shade(weight));
      }
    }
    context.putImageData(image, 0, 0);
  }

  return { element, paint };
}

const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
let [lastColour, lastNumbers] = [null, null];

/** The element's colour as numbers: whatever way the style sheet spells it, a canvas can read it back. */
function colourOf(element) {
  const { color } = getComputedStyle(element);
  if (color === lastColour) return lastNumbers;
  probe.clearRect(0, 0, 1, 1);
  probe.fillStyle = color;
  probe.fillRect(0, 0, 1, 1);
  [lastColour, lastNumbers] = [color, probe.getImageData(0, 0, 1, 1).data];
  return lastNumbers;
}

/**
 * Whether the pointer itself has moved: browsers also report a move when something else came to lie under it, and that must
 * not undo what the keyboard has chosen.
 * @param {PointerEvent} event
 */
export function reallyMoved(event) {
  return event.movementX !== 0 || event.movementY !== 0;
}

/**
 * Call `listener` when the page's colours change, by the system or by the button.
 * @param {() => void} listener
 */
export function onColours(listener) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", listener);
  new MutationObserver(listener).observe(document.documentElement, { attributeFilter: ["data-theme"] });
}
