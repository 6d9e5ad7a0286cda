/** All heads of all layers as small maps, one of which is chosen. */

import { h, replace } from "./dom.js";
import { createHeatmap } from "./heatmap.js";
import { roving } from "./roving.js";

/** @typedef {{layer: number, head: number|null}} Pick head null: the mean of the layer's heads */

/**
 * @param {{choose: (pick: Pick) => void}} options
 * @returns {{element: HTMLElement, build: (layers: number, heads: number) => void,
 *   fill: (layer: number, maps: number[][][]) => void, mark: (pick: Pick) => void, paint: () => void}} `fill`: a layer's mean,
 *   then its heads
 */
export function createHeadGrid({ choose }) {
  const element = h("div", { class: "headgrid", role: "group", "aria-label": "All heads" });
  const keys = roving(element, ".headgrid-cell");
  /** @type {Map<string, {button: HTMLElement, map: ReturnType<typeof createHeatmap>}>} */
  const cells = new Map();

  function cell(layer, head) {
    const map = createHeatmap("");
    const name = `Layer ${layer + 1}, ${headName(head)}`;
    const button = h(
      "button",
      {
        class: "headgrid-cell", type: "button", tabindex: -1, title: name, "aria-label": name, "aria-pressed": "false",
        onclick: () => choose({ layer, head }),
      },
      map.element,
    ); // prettier-ignore
    cells.set(`${layer}/${head}`, { button, map });
    return button;
  }

  return {
    element,
    build(layers, heads) {
      cells.clear();
      const columns = [null, ...Array(heads).keys()];
      element.style.setProperty("--columns", String(columns.length));
      replace(
        element,
        h("span"),
        columns.map((head) => h("span", { class: "help headgrid-name", "aria-hidden": "true" }, head === null ? "mean" : head + 1)),
        [...Array(layers).keys()].map((layer) => [
          h("span", { class: "help headgrid-layer", "aria-hidden": "true" }, `Layer ${layer + 1}`),
          columns.map((head) => cell(layer, head)),
        ]),
      );
    },
    fill(layer, maps) {
      for (const [index, matrix] of maps.entries()) cells.get(`${layer}/${index === 0 ? null : index - 1}`).map.paint(matrix);
    },
    mark({ layer, head }) {
      for (const [key, { button }] of cells) button.setAttribute("aria-pressed", String(key === `${layer}/${head}`));
      keys.refresh();
    },
    paint: () => cells.forEach(({ map }) => map.paint()),
  };
}

/**
 * @param {number|null} head
 */
export function headName(head) {
  return head === null ? "mean of its heads" : `head ${head + 1}`;
}
