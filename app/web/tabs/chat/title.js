/** The name of a conversation, which can be changed where it stands. */

import { titleOf } from "../../lib/conversation.js";
import { h, replace } from "../../lib/dom.js";

/**
 * @param {{rename: (title: string) => void, leave: () => void}} options `rename`: with an empty title, the first words
 *   again; `leave`: the field is closed by a key, and the focus has to go somewhere
 * @returns {{element: HTMLElement, show: (conversation: any) => void, edit: () => void}}
 */
export function createTitle({ rename, leave }) {
  const element = h("h2", { class: "title grow" });
  let [shown, editing] = [null, false];

  function show(conversation) {
    if (editing && conversation.id === shown?.id) return;
    [shown, editing] = [conversation, false];
    element.textContent = titleOf(conversation);
    element.title = titleOf(conversation);
  }

  function edit() {
    editing = true;
    const input = h("input", { class: "input", "aria-label": "Title", value: titleOf(shown), maxlength: 200 });
    const stop = (keep) => {
      if (!editing) return;
      editing = false;
      const title = input.value.trim();
      if (keep && title !== titleOf(shown)) rename(title);
      show(shown);
    };
    input.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault(); // else Enter would press what gets the focus
      stop(event.key === "Enter");
      leave();
    });
    input.addEventListener("blur", () => stop(true));
    replace(element, input);
    input.focus(); // not every browser does so with what is selected
    input.select();
  }

  return { element, show, edit };
}
