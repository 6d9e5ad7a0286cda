/** The name of a conversation, which can be changed where it stands. */

import { titleOf } from "../../lib/conversation.js";
import { h, replace } from "../../lib/dom.js";

/**
 * @param {(title: string) => void} rename an empty title: the first words again
 * @returns {{element: HTMLElement, show: (conversation: any) => void, edit: () => void}}
 */
export function createTitle(rename) {
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
      if (event.key === "Enter") stop(true);
      if (event.key === "Escape") stop(false);
    });
    input.addEventListener("blur", () => stop(true));
    replace(element, input);
    input.select();
  }

  return { element, show, edit };
}
