/** Radio buttons that look like one control. */

import { h, uniqueId } from "../../lib/dom.js";

/**
 * A choice of a few, all in sight.
 * @param {string} legend
 * @param {[string, string][]} options value and text
 * @param {(value: string) => void} onChange
 */
export function radios(legend, options, onChange) {
  const name = uniqueId("choice");
  const inputs = options.map(([value]) => h("input", { type: "radio", name, value, onchange: () => onChange(value) }));
  return {
    element: h(
      "fieldset",
      { class: "segments" },
      h("legend", { class: "visually-hidden" }, legend),
      options.map(([, text], i) => h("label", { class: "segment" }, inputs[i], h("span", null, text))),
    ),
    check(value) {
      for (const input of inputs) input.checked = input.value === value;
    },
  };
}
