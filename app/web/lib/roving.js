/** Many things to choose among with one stop of the Tab key: the arrow keys move by what is seen. */

/**
 * Make the elements that match `selector` in `container` one stop: Left and Right go to the neighbour, Up and Down to the
 * nearest in the next row as it is shown, Home and End to the ends of the row, with Ctrl of everything. `selector` may match
 * others later. `onFocus` is told whenever one gets the focus by any way.
 * @param {HTMLElement} container
 * @param {string} selector
 * @param {(item: HTMLElement) => void} [onFocus]
 * @returns {{refresh: () => void, focus: (item: HTMLElement|undefined) => void}} `refresh` after elements came or went
 */
export function roving(container, selector, onFocus = () => {}) {
  let current = null;
  const items = () => [...container.querySelectorAll(selector)];

  function mark(item) {
    if (current && current !== item) current.tabIndex = -1;
    current = item;
    if (item) item.tabIndex = 0;
  }

  container.addEventListener("focusin", (event) => {
    const item = event.target.closest(selector);
    if (!item) return;
    mark(item);
    onFocus(item);
  });
  container.addEventListener("keydown", (event) => {
    if (event.altKey || event.metaKey || (event.ctrlKey && !["Home", "End"].includes(event.key))) return;
    const item = event.target.closest(selector);
    const to = item && target(items(), item, event);
    if (to === null || to === undefined) return;
    event.preventDefault();
    to.focus();
    to.scrollIntoView({ block: "nearest", inline: "nearest" });
  });

  return {
    refresh() {
      if (current?.isConnected && container.contains(current)) return;
      mark(container.querySelector(selector));
    },
    focus: (item) => item?.focus(),
  };
}

function target(items, item, { key, ctrlKey }) {
  const at = items.indexOf(item);
  if (key === "ArrowRight") return items[at + 1];
  if (key === "ArrowLeft") return items[at - 1];
  if (ctrlKey && (key === "Home" || key === "End")) return items.at(key === "Home" ? 0 : -1);
  if (key === "Home" || key === "End") {
    const row = items.filter((other) => sameRow(item, other));
    return row.at(key === "Home" ? 0 : -1);
  }
  if (key === "ArrowDown") return inNextRow(items.slice(at + 1), item);
  if (key === "ArrowUp") return inNextRow(items.slice(0, at).reverse(), item);
  return null;
}

/** A text that wraps has its place where it begins. */
function place(item) {
  const [first] = item.getClientRects();
  return first ?? item.getBoundingClientRect();
}

function sameRow(one, other) {
  return Math.abs(place(one).top - place(other).top) < place(one).height / 2;
}

/** The nearest, from left to right, in the first row among `others` that is not `item`'s. */
function inNextRow(others, item) {
  const next = others.find((other) => !sameRow(item, other));
  if (!next) return null;
  const row = others.filter((other) => sameRow(next, other));
  const { left, width } = place(item);
  const distance = (other) => Math.abs(place(other).left + place(other).width / 2 - (left + width / 2));
  return row.reduce((best, other) => (distance(other) < distance(best) ? other : best));
}
