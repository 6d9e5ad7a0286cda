/** How the answers are made: the conversation's system prompt and the sampling parameters. */

import { h, uniqueId } from "../../lib/dom.js";
import { createParams } from "../../lib/params.js";

/**
 * @param {{store: ReturnType<import("../../lib/store.js").createStore>, setSystem: (text: string) => void,
 *   setTrim: (trim: boolean) => void, close: () => void}} options
 */
export function createSettings({ store, setSystem, setTrim, close }) {
  const [id, help, trimHelp] = [uniqueId("system"), uniqueId("system-help"), uniqueId("trim-help")];
  const system = h("textarea", { id, class: "input", rows: 4, "aria-describedby": help, placeholder: "You are a friendly storyteller." });
  system.addEventListener("input", () => setSystem(system.value));
  const trim = h("input", { type: "checkbox", "aria-describedby": trimHelp });
  trim.addEventListener("change", () => setTrim(trim.checked));
  const params = createParams({ store, name: "chat" });
  const element = h(
    "aside",
    { class: "settings", "aria-label": "Settings" },
    h(
      "div",
      { class: "row" },
      h("h2", { class: "grow" }, "Settings"),
      h("button", { class: "button quiet icon", type: "button", "aria-label": "Close settings", onclick: close }, "×"),
    ),
    h(
      "div",
      { class: "field" },
      h("label", { for: id }, "System prompt"),
      system,
      h("p", { class: "help", id: help }, "Tells the model, ahead of this conversation, who it is and how to answer. Models that were not trained on instructions care little."),
    ),
    h(
      "div",
      { class: "field" },
      h("label", { class: "check" }, trim, "Leave out the oldest messages when they don’t fit"),
      h("p", { class: "help", id: trimHelp }, "Else the conversation ends when the model’s context is full. Of this conversation only."),
    ),
    h("hr"),
    params.element,
  );
  return {
    element,
    params,
    /** Show this conversation's. */
    show(conversation) {
      if (system.value !== conversation.system) system.value = conversation.system;
      trim.checked = conversation.trim;
    },
  };
}
