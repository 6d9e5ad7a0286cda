/** One message of a conversation, as it is shown: its text, what it took, and what can be done with it. */

import { copyText, formatNumber, h, replace, uniqueId } from "../../lib/dom.js";
import { renderMarkdown } from "../../lib/markdown.js";

/**
 * @typedef {Object} MessageActions
 * @property {(message: any) => void} retry another answer
 * @property {(message: any) => void} goOn the answer was cut: write on
 * @property {(message: any, text: string) => boolean} edit say something else in its place; false: it was not taken
 * @property {(message: any, action: "older"|"newer") => void} choose show this version, which was asked for by this button
 * @property {() => void} trim from now on leave out the oldest messages
 * @property {() => void} startAnew
 */

/** What is shown of a message, and kept in step with it. */
export class MessageView {
  #rendered = null;
  #editing = false;
  #drawn = "";

  /**
   * @param {import("../../lib/conversation.js").Message} message
   * @param {MessageActions} actions
   */
  constructor(message, actions) {
    [this.message, this.actions] = [message, actions];
    // What buttons do is done with the message as it is when they are pressed: another window may have replaced it.
    this.own = {
      ...actions,
      retry: () => actions.retry(this.message),
      goOn: () => actions.goOn(this.message),
      copy: () => copyText(this.message.content),
      startEdit: () => this.#startEdit(),
    };
    this.mine = message.role === "user";
    this.name = h("h3", { class: "speaker" });
    this.text = h("div", { class: "text" });
    this.note = h("div", { class: "note-place" });
    this.meta = h("span", { class: "meta" });
    this.tools = h("div", { class: "tools" });
    const foot = h("div", { class: "foot" }, this.tools, this.meta);
    this.element = h("article", { class: `message ${message.role}` }, this.name, this.text, this.note, foot);
  }

  /**
   * Show the message as it is now.
   * @param {import("../../lib/conversation.js").Message} message the same or, from another window, a newer state of it
   * @param {{versions: any[], last: boolean, busy: boolean, trim: boolean, context: number|null}} state
   */
  update(message, state) {
    this.message = message;
    this.name.textContent = this.mine ? "You" : (message.model ?? "Model");
    this.#renderText();
    const waiting = !this.mine && state.busy && state.last && message.finish === null;
    this.element.classList.toggle("writing", waiting);
    this.element.setAttribute("aria-busy", String(waiting));
    this.meta.textContent = waiting ? "" : describeCost(message);
    // Buttons and notes are made again only when they differ: a press must not fall on one that is being replaced.
    const { finish, error, content } = message;
    const look = JSON.stringify([{ ...state, versions: state.versions.map((version) => version.id) }, finish, error, content === ""]);
    if (look === this.#drawn) return;
    this.#drawn = look;
    const focused = this.element.contains(document.activeElement) ? document.activeElement.dataset.action : undefined;
    replace(this.note, this.mine || waiting ? null : noteOn(message, state, this.own));
    replace(this.tools, waiting ? null : buttons(message, state, this.own));
    if (focused) this.focus(focused);
  }

  /** Focus the button of this action, if it can be pressed; of the arrows else the other one. */
  focus(action) {
    const find = (name) => this.element.querySelector(`[data-action="${name}"]:not(:disabled)`);
    const other = { older: "newer", newer: "older" }[action];
    (find(action) ?? find(other))?.focus();
  }

  /** Show what the message has become longer by. */
  grow() {
    this.name.textContent = this.message.model ?? "Model";
    this.#renderText();
  }

  #renderText() {
    const { content } = this.message;
    if (this.#editing || this.#rendered === content) return;
    this.#rendered = content;
    if (this.mine) this.text.textContent = content;
    else replace(this.text, renderMarkdown(content));
  }

  #startEdit() {
    this.#editing = true;
    this.element.classList.add("editing");
    replace(this.text, editor(this.message.content, (changed) => this.#endEdit(changed)));
    this.text.querySelector("textarea").focus();
  }

  #endEdit(changed) {
    if (changed !== null && this.actions.edit(this.message, changed) === false) return; // it can be sent later
    [this.#editing, this.#rendered] = [false, null];
    this.element.classList.remove("editing");
    this.#renderText();
    if (changed === null) this.focus("edit");
  }
}

function editor(content, stop) {
  const id = uniqueId("edit");
  const area = h("textarea", { id, class: "input", rows: 3, value: content });
  const save = () => {
    if (area.value.trim() !== "") stop(area.value);
  };
  area.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      save();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      stop(null);
    }
  });
  return h(
    "div",
    { class: "stack small-gap" },
    h("label", { class: "visually-hidden", for: id }, "Edit message"),
    area,
    h(
      "div",
      { class: "row end" },
      h("span", { class: "help grow" }, "The old version and its answers stay: go back to them with the arrows."),
      h("button", { class: "button small", type: "button", onclick: () => stop(null) }, "Cancel"),
      h("button", { class: "button small primary", type: "button", onclick: save }, "Send"),
    ),
  );
}

function button(action, label, run, more = {}) {
  return h("button", { class: "button small quiet", type: "button", "data-action": action, onclick: run, ...more }, label);
}

function buttons(message, { versions, busy }, actions) {
  const copy = button("copy", "Copy", async () => {
    copy.textContent = (await actions.copy()) ? "Copied" : "Can’t copy";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  const again =
    message.role === "user"
      ? button("edit", "Edit", actions.startEdit, { disabled: busy })
      : button("retry", "Try again", actions.retry, { disabled: busy });
  return [versions.length > 1 && switcher(message, versions, actions, busy), message.content && copy, again];
}

function switcher(message, versions, actions, busy) {
  const at = versions.findIndex((version) => version.id === message.id);
  const arrow = (action, sign, label, to) =>
    button(action, sign, () => actions.choose(versions[to], action), { "aria-label": label, disabled: busy || !versions[to], class: "button small quiet icon" });
  return h(
    "span",
    { class: "versions", role: "group", "aria-label": "Versions" },
    arrow("older", "‹", "Older version", at - 1),
    h("span", null, `${at + 1} / ${versions.length}`),
    arrow("newer", "›", "Newer version", at + 1),
  );
}

function describeCost(message) {
  if (message.role === "user") return "";
  const parts = [];
  if (message.tokens !== undefined) parts.push(`${formatNumber(message.tokens)} token${message.tokens === 1 ? "" : "s"}`);
  if (message.speed !== undefined) parts.push(`${formatNumber(message.speed, message.speed < 10 ? 1 : 0)} tokens/s`);
  if (message.wait !== undefined) parts.push(`first after ${formatNumber(message.wait, 2)} s`);
  return parts.join(" · ");
}

/** What there is to say about how an answer ended, with what can be done. */
function noteOn(message, { last, busy, trim, context }, actions) {
  if (message.error) return errorNote(message.error, { last, busy, trim }, actions);
  const act = (label, run) => last && h("button", { class: "button small", type: "button", disabled: busy, onclick: run }, label);
  const line = (text, ...more) => h("div", { class: "note row" }, h("span", null, text), more);
  if (message.finish === "length") {
    const full = context !== null && (message.promptTokens ?? 0) + (message.tokens ?? 0) >= context;
    if (!full) return line("Cut off at the length that the settings allow.", act("Write on", actions.goOn));
    const text = `Cut off: with this the model’s ${formatNumber(context)} tokens are full.`;
    return line(text, !trim && act("Leave out the oldest messages", actions.trim), act("New conversation", actions.startAnew));
  }
  if (message.finish === "stopped") return line("Stopped.", message.content && act("Write on", actions.goOn));
  if (message.finish === null) return line("Not complete: the page was closed, or another window is still writing it.", message.content && act("Write on", actions.goOn));
  if (message.content.trim() === "") return line("The model ended without a word.");
  return null;
}

function errorNote(error, { last, busy, trim }, actions) {
  const act = (label, run) => last && h("button", { class: "button small", type: "button", disabled: busy, onclick: run }, label);
  const box = (text, ...more) => h("div", { class: "error-box stack small-gap", role: "alert" }, h("p", null, text), h("div", { class: "row" }, more));
  if (error.code !== "context_length_exceeded") return box(error.message);
  const length = `This conversation has ${formatNumber(error.prompt)} tokens, and the model can read and write ${formatNumber(error.context)} in all.`;
  if (trim) return box(`Your last message is too long even by itself: ${formatNumber(error.prompt)} tokens, and the model can read and write ${formatNumber(error.context)} in all. Edit it and make it shorter.`);
  return box(
    `${length} Leave out the oldest messages, begin a new conversation, or edit your message and make it shorter.`,
    act("Leave out the oldest messages", actions.trim),
    act("New conversation", actions.startAnew),
  );
}
