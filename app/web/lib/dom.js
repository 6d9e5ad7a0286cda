/** Small helpers around the DOM. Text only ever becomes text nodes: nothing that a model or a person wrote is read as HTML. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: `h("button", {class: "quiet", onclick: run}, "Run")`.
 *
 * Properties: `class`, `style` (an object; custom properties too), `dataset` (an object), functions under `onclick` and so
 * on, `true` for a bare attribute; null, undefined and false are left out; the rest are attributes. `value`, `checked` and
 * `selected` are set as properties. Children: nodes, strings, numbers, nested arrays; null, undefined and false are left
 * out.
 * @param {string} tag
 * @param {Object<string, any>|null} [props]
 * @param {...any} children
 * @returns {HTMLElement}
 */
export function h(tag, props, ...children) {
  return build(document.createElement(tag), props, children);
}

/**
 * The same for SVG: `s("rect", {width: 4, height: 9})`.
 * @param {string} tag
 * @param {Object<string, any>|null} [props]
 * @param {...any} children
 * @returns {SVGElement}
 */
export function s(tag, props, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

const AS_PROPERTY = new Set(["value", "checked", "selected"]);

function build(element, props, children) {
  // A select's value means nothing before its options are there.
  append(element, children);
  const late = [];
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") {
      for (const [key, text] of Object.entries(value)) {
        if (key.startsWith("--")) element.style.setProperty(key, String(text));
        else element.style[key] = text;
      }
    } else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name.startsWith("on") && typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (AS_PROPERTY.has(name)) late.push([name, value]);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  // After the attributes: a slider cuts its value to the range that it has so far.
  for (const [name, value] of late) element[name] = value;
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(element, child);
    else element.append(child instanceof Node ? child : String(child));
  }
}

/**
 * Put `children` (as for `h`) in place of what `element` holds.
 * @param {Element} element
 * @param {...any} children
 */
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

let lastId = 0;

/**
 * An id that no other element has, for labels and descriptions.
 * @param {string} prefix
 */
export function uniqueId(prefix) {
  lastId += 1;
  return `${prefix}-${lastId}`;
}

/**
 * Hand the reader a file to keep.
 * @param {string} name
 * @param {string|Blob} content
 * @param {string} [type]
 */
export function download(name, content, type = "application/json") {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/**
 * Copy text; works without HTTPS too, where browsers have no clipboard API.
 * @param {string} text
 * @returns {Promise<boolean>} whether it worked
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const before = document.activeElement;
  const area = h("textarea", { value: text, readonly: true, class: "offscreen" });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus?.();
  return done;
}

/**
 * Let a button be pressed or not. Unlike `disabled` this leaves it the focus; what it does is to be set by `onPress`.
 * @param {HTMLElement} button
 * @param {boolean} can
 */
export function setEnabled(button, can) {
  button.setAttribute("aria-disabled", String(!can));
}

/**
 * What a press does while the button can be pressed.
 * @param {HTMLElement} button
 * @param {(event: MouseEvent) => void} [act]
 */
export function onPress(button, act = () => {}) {
  button.addEventListener("click", (event) => {
    if (button.getAttribute("aria-disabled") === "true") event.preventDefault();
    else act(event);
  });
}

/**
 * A number for people: thin grouping, few digits.
 * @param {number} value
 * @param {number} [digits] after the point, at most
 */
export function formatNumber(value, digits = 0) {
  return new Intl.NumberFormat("en", { maximumFractionDigits: digits }).format(value);
}
