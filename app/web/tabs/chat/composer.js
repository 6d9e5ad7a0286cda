/** Where messages are written. Enter sends, Shift+Enter makes a new line, Escape stops an answer. */

import { h, uniqueId } from "../../lib/dom.js";

const DRAFT = "draft";
const TALLEST = 220; // px
const KEYS = "Enter sends, Shift+Enter makes a new line.";

/**
 * @param {{store: ReturnType<import("../../lib/store.js").createStore>, send: (text: string) => boolean, stop: () => void}}
 *   options `send` tells whether it took the text
 * @returns {{element: HTMLElement, set: (text: string) => void, focus: () => void,
 *   update: (state: {busy: boolean, usage: string, blocked: string|null}) => void, say: (text: string) => void}}
 */
export function createComposer({ store, send, stop }) {
  const [id, help] = [uniqueId("composer"), uniqueId("composer-help")];
  const area = h("textarea", { id, class: "input composer-text", rows: 1, placeholder: "Write a message", "aria-describedby": help });
  const sendButton = h("button", { class: "button primary", type: "submit" }, "Send");
  const stopButton = h("button", { class: "button danger", type: "button", hidden: true, onclick: stop }, "Stop");
  const hint = h("span", { id: help }, KEYS);
  const usage = h("span", { class: "usage" });
  const mistake = h("p", { class: "error", role: "alert" });
  let [busy, blocked] = [false, null];

  function grow() {
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight + 2, TALLEST)}px`;
  }

  function say(text) {
    mistake.textContent = text;
  }

  function submit(event) {
    event?.preventDefault();
    if (blocked !== null) return;
    if (busy) return say("An answer is being written. Wait for its end or stop it.");
    if (area.value.trim() === "") return;
    if (!send(area.value)) return;
    area.value = "";
    store.remove(DRAFT);
    say("");
    grow();
  }

  area.addEventListener("input", () => {
    grow();
    say("");
    try {
      store.set(DRAFT, area.value);
    } catch {
      // A draft that can't be kept is still in the field; saving the message will tell.
    }
  });
  area.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // Enter ends the composition of a character
    if (event.key === "Enter" && !event.shiftKey) submit(event);
    else if (event.key === "Escape" && busy) stop();
  });
  area.value = store.get(DRAFT, "");
  requestAnimationFrame(grow);

  const element = h(
    "form",
    { class: "composer", onsubmit: submit },
    mistake,
    h("label", { class: "visually-hidden", for: id }, "Message"),
    h("div", { class: "composer-row" }, area, sendButton, stopButton),
    h("p", { class: "help composer-help" }, hint, usage),
  );

  return {
    element,
    say,
    focus: () => area.focus(),
    set(text) {
      area.value = text;
      grow();
      area.focus();
    },
    update(state) {
      const hadFocus = document.activeElement === sendButton || document.activeElement === stopButton;
      if (busy && !state.busy) say("");
      [busy, blocked] = [state.busy, state.blocked];
      sendButton.hidden = busy;
      stopButton.hidden = !busy;
      area.disabled = sendButton.disabled = blocked !== null;
      hint.textContent = blocked ?? (busy ? "Escape stops the answer." : KEYS);
      hint.classList.toggle("keys", blocked === null);
      usage.textContent = state.usage;
      if (hadFocus) (busy ? stopButton : sendButton).focus();
    },
  };
}
