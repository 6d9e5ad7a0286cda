/** A small curve without axes, for figures that come each second. */

import { s } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 48;
const EDGE = 2; // so that the line's own width stays inside

/**
 * A curve that can be drawn anew as often as one likes.
 * @param {(values: number[]) => string} describe what a screen reader says of it
 * @returns {{element: SVGElement, draw: (values: number[]) => void}} values: the oldest first; the scale begins at 0
 */
export function createSparkline(describe) {
  const area = s("path", { class: "spark-area" });
  const line = s("path", { class: "spark-line", "vector-effect": "non-scaling-stroke" });
  const element = s(
    "svg",
    { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": "" },
    area,
    line,
  );
  return {
    element,
    draw(values) {
      const points = sparkPoints(values);
      const path = points.map(([x, y]) => `${x},${y}`).join(" L");
      line.setAttribute("d", points.length ? `M${path}` : "");
      area.setAttribute("d", points.length ? `M${points[0][0]},${HEIGHT} L${path} L${points.at(-1)[0]},${HEIGHT} Z` : "");
      element.setAttribute("aria-label", describe(values));
    },
  };
}

/**
 * Where the values lie: from left to right over the whole width, the greatest at the top.
 * @param {number[]} values
 * @returns {[number, number][]}
 */
export function sparkPoints(values) {
  const most = Math.max(1, ...values);
  const step = WIDTH / Math.max(1, values.length - 1);
  const height = HEIGHT - 2 * EDGE;
  return values.map((value, i) => [round(i * step), round(HEIGHT - EDGE - (value / most) * height)]);
}

function round(value) {
  return Math.round(value * 100) / 100;
}
