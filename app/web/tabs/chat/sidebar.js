/** The list of conversations, and what can be done with all of them. */

import { titleOf } from "../../lib/conversation.js";
import { h, replace } from "../../lib/dom.js";

/**
 * @param {{open: (conversation: any) => void, create: () => void, importFile: (file: File) => void, exportAll: () => void}} actions
 * @returns {{element: HTMLElement, show: (list: any[], current: any, isBusy: (id: string) => boolean) => void}}
 */
export function createSidebar(actions) {
  const list = h("ul", { class: "conversations" });
  const chooser = h("input", { type: "file", accept: ".json,application/json", class: "visually-hidden", tabindex: -1, "aria-hidden": "true" });
  chooser.addEventListener("change", () => {
    if (chooser.files[0]) actions.importFile(chooser.files[0]);
    chooser.value = ""; // the same file may be chosen again
  });
  const exportButton = h("button", { class: "button small", type: "button", onclick: actions.exportAll }, "Export all");
  const element = h(
    "nav",
    { class: "sidebar", "aria-label": "Conversations" },
    h("button", { class: "button", type: "button", onclick: actions.create }, "New conversation"),
    list,
    h(
      "div",
      { class: "row sidebar-foot" },
      h("button", { class: "button small", type: "button", onclick: () => chooser.click() }, "Import…"),
      exportButton,
      chooser,
    ),
  );

  let drawn = "";

  return {
    element,
    show(all, current, isBusy) {
      exportButton.disabled = all.length === 0;
      const look = JSON.stringify(all.map((c) => [c.id, titleOf(c), when(c.updated), isBusy(c.id), c.id === current.id]));
      if (look === drawn) return;
      drawn = look;
      const focused = list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
      replace(list, all.length ? all.map((c) => item(c, c.id === current.id, isBusy(c.id), actions)) : h("li", { class: "help" }, "None yet."));
      if (focused) list.querySelector(`[data-id="${focused}"]`)?.focus();
    },
  };
}

function item(conversation, chosen, busy, { open }) {
  const title = titleOf(conversation);
  const props = { class: "conversation", type: "button", "data-id": conversation.id, "aria-current": chosen ? "true" : null, title };
  return h(
    "li",
    null,
    h(
      "button",
      { ...props, onclick: () => open(conversation) },
      h("span", { class: "conversation-title" }, title),
      h("span", { class: "conversation-time" }, busy ? "writing…" : when(conversation.updated)),
    ),
  );
}

function when(time) {
  const date = new Date(time);
  const today = new Date().toDateString() === date.toDateString();
  return new Intl.DateTimeFormat(undefined, today ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short" }).format(date);
}
