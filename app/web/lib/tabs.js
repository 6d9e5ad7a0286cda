/** The tabs: chosen by the address's hash, moved through by arrow keys, their modules loaded when first shown. */

import { h, replace } from "./dom.js";

/**
 * Make the tabs of `list` (links with role tab to #NAME, each with a panel) work. A tab's module tabs/NAME.js exports
 * `mount(panel, context)`, called once, and if it likes `show()` and `hide()`; its style sheet is tabs/NAME.css. What
 * follows a slash in the hash is the tab's own.
 * @param {HTMLElement} list
 * @param {Object<string, any>} context handed to every tab
 */
export function createTabs(list, context) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const names = tabs.map((tab) => tab.hash.slice(1));
  /** @type {Map<string, Promise<any>>} */
  const mounted = new Map();
  let shown = null;

  const panelOf = (name) => document.getElementById(`panel-${name}`);

  async function mount(name) {
    const panel = panelOf(name);
    panel.setAttribute("aria-busy", "true");
    try {
      const [module] = await Promise.all([import(`../tabs/${name}.js`), loadStyle(`page/tabs/${name}.css`)]);
      replace(panel); // what told of a first try that failed
      await module.mount(panel, context);
      return module;
    } catch (error) {
      console.error(error);
      mounted.delete(name); // the next visit tries again
      replace(panel, failure());
      return {};
    } finally {
      panel.removeAttribute("aria-busy");
    }
  }

  async function open(name) {
    if (name === shown) return;
    const before = shown;
    shown = name;
    for (const [index, tab] of tabs.entries()) select(tab, panelOf(names[index]), names[index] === name);
    document.title = `${tabs[names.indexOf(name)].textContent} · Homegrown`;
    document.body.dataset.tab = name;
    if (before !== null) (await mounted.get(before))?.hide?.();
    if (!mounted.has(name)) mounted.set(name, mount(name));
    const module = await mounted.get(name);
    if (shown === name) module.show?.();
  }

  const fromHash = () => {
    const name = location.hash.slice(1).split("/")[0];
    open(names.includes(name) ? name : names[0]);
  };

  list.addEventListener("keydown", (event) => moveByKey(tabs, event));
  addEventListener("hashchange", fromHash);
  fromHash();
}

/** Arrow keys, Home and End go through the tabs and open them. */
function moveByKey(tabs, event) {
  const at = tabs.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1, " ": at }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  const tab = tabs[(to + tabs.length) % tabs.length];
  tab.focus();
  location.hash = tab.hash;
}

function select(tab, panel, chosen) {
  tab.setAttribute("aria-selected", String(chosen));
  tab.tabIndex = chosen ? 0 : -1;
  panel.hidden = !chosen;
}

function failure() {
  return h(
    "div",
    { class: "page stack" },
    h("p", { class: "error", role: "alert" }, "This part of the page can’t be loaded. Is the server still running?"),
    h("div", null, h("button", { class: "button", type: "button", onclick: () => location.reload() }, "Load the page again")),
  );
}

/** Resolves when the sheet is there: a tab is not shown half dressed. */
function loadStyle(href) {
  return new Promise((resolve, reject) => {
    const link = h("link", { rel: "stylesheet", href });
    link.addEventListener("load", resolve);
    link.addEventListener("error", () => {
      link.remove();
      reject(new Error(`${href} can't be loaded`));
    });
    document.head.append(link);
  });
}
