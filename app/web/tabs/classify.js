/** The classify tab. */

/**
 * @param {HTMLElement} element
 * @param {Object<string, any>} context {api, models, store, toast, h}
 */
export function mount(element, { h }) {
  element.append(h("div", { class: "page stack" }, h("h2", null, "classify")));
}
