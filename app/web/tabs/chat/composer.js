/** Where messages are written. Enter sends, Shift+Enter makes a new line, Escape stops an answer. */

import { h, uniqueId } from "../../lib/dom.js";

const DRAFT = "draft";
const TALLEST = 220; // px
const KEYS = "Enter sends, Shift+Enter makes a new line.";
/** Said to whoever would have something answered while an answer is being written. */
export const WAIT = "An answer is being written. Wait for its end or stop it.";

/** The field, its buttons, and what is said beside them. */
export class Composer {
  #busy = false;
  #blocked = null;
  #options;

  /**
   * @param {{store: ReturnType<import("../../lib/store.js").createStore>, send: (text: string) => boolean,
   *   stop: () => void}} options `send` tells whether it took the text
   */
  constructor(options) {
    this.#options = options;
    this.#build();
    this.#listen();
    this.area.value = options.store.get(DRAFT, "");
    requestAnimationFrame(() => this.#grow());
  }

  #build() {
    const [id, help] = [uniqueId("composer"), uniqueId("composer-help")];
    this.area = h("textarea", { id, class: "input composer-text", rows: 1, placeholder: "Write a message", "aria-describedby": help });
    this.sendButton = h("button", { class: "button primary", type: "submit" }, "Send");
    this.stopButton = h("button", { class: "button danger", type: "button", hidden: true }, "Stop");
    this.hint = h("span", { id: help }, KEYS);
    this.usage = h("span", { class: "usage" });
    this.mistake = h("p", { class: "error", role: "alert" });
    this.element = h(
      "form",
      { class: "composer", onsubmit: (event) => this.#submit(event) },
      this.mistake,
      h("label", { class: "visually-hidden", for: id }, "Message"),
      h("div", { class: "composer-row" }, this.area, this.sendButton, this.stopButton),
      h("p", { class: "help composer-help" }, this.hint, this.usage),
    );
  }

  #listen() {
    this.stopButton.addEventListener("click", (event) => {
      if (event.detail < 2) this.#options.stop(); // it stands where Send was: the second of two clicks was meant for that
    });
    this.area.addEventListener("input", () => {
      this.#grow();
      this.say("");
      try {
        this.#options.store.set(DRAFT, this.area.value);
      } catch {
        // A draft that can't be kept is still in the field; saving the message will tell.
      }
    });
    this.area.addEventListener("keydown", (event) => {
      if (event.isComposing) return; // Enter ends the composition of a character
      if (event.key === "Enter" && !event.shiftKey) this.#submit(event);
      else if (event.key === "Escape" && this.#busy) this.#options.stop();
    });
  }

  #grow() {
    this.area.style.height = "auto";
    this.area.style.height = `${Math.min(this.area.scrollHeight + 2, TALLEST)}px`;
  }

  #submit(event) {
    event.preventDefault();
    if (this.#blocked !== null || this.area.value.trim() === "") return;
    if (this.#busy) {
      this.say(WAIT);
      return;
    }
    if (!this.#options.send(this.area.value)) return;
    this.area.value = "";
    this.#options.store.remove(DRAFT);
    this.say("");
    this.#grow();
  }

  /** Tell what is wrong, until something is written; "": nothing is. */
  say(text) {
    this.mistake.textContent = text;
  }

  focus() {
    this.area.focus();
  }

  /** Put a text there, to be sent or changed. */
  set(text) {
    this.area.value = text;
    this.#grow();
    this.focus();
  }

  /**
   * @param {{busy: boolean, usage: string, blocked: string|null}} state `busy`: an answer is being written; `usage`: how
   *   full the context is; `blocked`: why nothing can be asked
   */
  update({ busy, usage, blocked }) {
    const hadFocus = [this.sendButton, this.stopButton].includes(document.activeElement);
    if (this.#busy && !busy && this.mistake.textContent === WAIT) this.say("");
    [this.#busy, this.#blocked] = [busy, blocked];
    this.sendButton.hidden = busy;
    this.stopButton.hidden = !busy;
    this.area.disabled = this.sendButton.disabled = blocked !== null;
    this.hint.textContent = blocked ?? (busy ? "Escape stops the answer." : KEYS);
    this.hint.classList.toggle("keys", blocked === null);
    this.usage.textContent = usage;
    if (hadFocus) (busy ? this.stopButton : this.sendButton).focus();
  }
}
