/** The chat: conversations with the model, each a tree of messages, answered one at a time. */

import { addMessage, choose, newConversation, shownMessages, titleOf, toMarkdown } from "../lib/conversation.js";
import { Conversations } from "../lib/conversations.js";
import { download, formatNumber, h } from "../lib/dom.js";
import { createMenu } from "../lib/menu.js";
import { writeAnswer } from "./chat/answering.js";
import { Composer, WAIT } from "./chat/composer.js";
import { createDrawer } from "./chat/drawer.js";
import { createSettings } from "./chat/settings.js";
import { createSidebar } from "./chat/sidebar.js";
import { createThread } from "./chat/thread.js";
import { createTitle } from "./chat/title.js";

const SAVE_EVERY = 1000; // ms, while an answer is written

/**
 * @param {HTMLElement} element
 * @param {Object<string, any>} context {api, models, store, toast, h}
 */
export function mount(element, context) {
  new Chat(element, context).start();
}

class Chat {
  constructor(element, { api, models, store, toast }) {
    Object.assign(this, { element, api, models, store, toast });
    this.conversations = new Conversations(store);
    /** What is being answered, by id. @type {Map<string, {conversation: any, message: any, control: AbortController}>} */
    this.running = new Map();
    /** Ids of those among them that have been deleted meanwhile. @type {Set<string>} */
    this.deleted = new Set();
    this.current = this.conversations.last;
    this.status = h("p", { class: "visually-hidden", role: "status" });
    this.build();
  }

  build() {
    this.sidebar = createSidebar({
      open: (conversation) => this.open(conversation),
      create: () => this.open(newConversation()),
      importFile: (file) => this.importFile(file),
      exportAll: () => download("conversations.json", this.conversations.exportText()),
    });
    this.thread = createThread({
      retry: (message) => this.answer(message.parent),
      goOn: (message) => this.run(message),
      edit: (message, text) => this.say(text, message.parent),
      choose: (message, action) => this.choose(message, action),
      trim: () => this.trimAndRetry(),
      startAnew: () => this.open(newConversation()),
      suggest: (text) => this.composer.set(text),
    });
    this.composer = new Composer({ store: this.store, send: (text) => this.send(text), stop: () => this.stop() });
    this.settings = createSettings({
      store: this.store,
      setSystem: (text) => this.change({ system: text }),
      setTrim: (trim) => this.change({ trim }),
      close: () => this.settingsDrawer.close(),
    });
    const rename = (title) => this.change({ title });
    this.title = createTitle({ rename, leave: () => this.menu.querySelector("summary").focus() });
    this.arrange();
  }

  arrange() {
    const listButton = h("button", { class: "button quiet list-button", type: "button" }, "List");
    const settingsButton = h("button", { class: "button quiet", type: "button" }, "Settings");
    this.menu = createMenu("More", [
      { label: "Rename", run: () => this.title.edit() },
      { label: "Export as Markdown", run: () => this.export("md") },
      { label: "Export as JSON", run: () => this.export("json") },
      { label: "Delete", run: () => this.delete() },
    ]);
    const bar = h("div", { class: "bar" }, listButton, this.title.element, this.menu, settingsButton);
    const middle = h("div", { class: "middle" }, bar, this.thread.element, this.composer.element, this.status);
    this.element.classList.add("chat");
    this.element.append(this.sidebar.element, middle, this.settings.element);
    const remembered = {
      get: () => this.store.get("chat-settings-open", false),
      set: (open) => this.store.set("chat-settings-open", open),
    };
    this.listDrawer = createDrawer({ panel: this.sidebar.element, button: listButton, behind: [middle], always: true });
    this.settingsDrawer = createDrawer({ panel: this.settings.element, button: settingsButton, behind: [middle], remembered });
  }

  start() {
    this.conversations.subscribe(() => {
      // Another window may have put another object in its place, or deleted it.
      if (!this.running.has(this.current.id)) this.current = this.conversations.get(this.current.id) ?? this.current;
      this.show();
    });
    this.models.subscribe(() => this.show());
    // What is there of an answer outlives the page.
    addEventListener("pagehide", () => this.running.forEach(({ conversation }) => this.save(conversation)));
    this.show();
  }

  show() {
    const path = shownMessages(this.current);
    const busy = this.running.has(this.current.id);
    this.title.show(this.current);
    this.thread.show(this.current, path, { busy, context: this.models.context });
    this.settings.show(this.current);
    this.sidebar.show(this.conversations.list, this.current, (id) => this.running.has(id));
    this.composer.update({ busy, usage: this.usage(path), blocked: this.blocked() });
  }

  usage(path) {
    const last = path.findLast((message) => message.promptTokens !== undefined);
    if (!last || this.models.context === null) return "";
    return `${formatNumber(last.promptTokens + (last.tokens ?? 0))} of ${formatNumber(this.models.context)} tokens used`;
  }

  blocked() {
    const none = this.models.list.length > 0 && this.models.of("generate").length === 0;
    return none ? "The model of this server sorts texts and can’t answer. Use the tab Classify." : null;
  }

  /** Keep it; what the browser can't keep is told, and stays on the page. */
  save(conversation, options) {
    if (this.deleted.has(conversation.id)) return false; // while its answer was being written
    const writing = this.running.get(conversation.id)?.message;
    try {
      this.conversations.save(conversation, { ...options, writing });
      if (conversation.id === this.current.id) this.conversations.remember(conversation); // others are answered unseen
      return true;
    } catch (error) {
      this.toast(error.message, "error");
      return false;
    }
  }

  /** Change something of the conversation's own. One in which nothing was said is not kept yet. */
  change(values) {
    Object.assign(this.current, values);
    if (Object.keys(this.current.messages).length) this.save(this.current, { touch: false });
    this.show();
  }

  open(conversation) {
    const { id } = conversation;
    // The list may hold what another window has replaced since.
    this.current = this.running.get(id)?.conversation ?? this.conversations.get(id) ?? conversation;
    if (Object.keys(this.current.messages).length) this.conversations.remember(this.current);
    this.listDrawer.giveWay();
    this.show();
    if (matchMedia("(pointer: fine)").matches) this.composer.focus();
  }

  choose(message, action) {
    choose(this.current, message);
    this.save(this.current, { touch: false });
    this.show();
    this.thread.focus(message, action);
  }

  send(text) {
    return this.say(text, shownMessages(this.current).at(-1)?.id ?? null);
  }

  /** Say something behind the message `parent`, and have it answered. False: not said, and the reason is told. */
  say(text, parent) {
    const params = this.params();
    if (params === null || this.mustWait()) return false;
    const message = addMessage(this.current, parent, "user", text);
    this.thread.toEnd();
    this.answer(message.id, params);
    return true;
  }

  answer(parent, params = this.params()) {
    if (params === null || this.mustWait()) return;
    this.run(addMessage(this.current, parent, "assistant", ""), params);
  }

  /** Whether another answer is being written here, which is told: one after the other. */
  mustWait() {
    const busy = this.running.has(this.current.id);
    if (busy) this.composer.say(WAIT);
    return busy;
  }

  /** The sampling parameters; null when one of them is wrong, which is told. */
  params() {
    try {
      return this.settings.params.values();
    } catch (error) {
      this.composer.say(`Settings: ${error.message}`);
      return null;
    }
  }

  /** Have an answer written, on from where it is. */
  async run(message, params = this.params()) {
    const conversation = this.current;
    if (params === null || this.running.has(conversation.id)) return;
    const control = new AbortController();
    this.running.set(conversation.id, { conversation, message, control });
    this.status.textContent = "The model is answering.";
    message.finish = null;
    message.error = null;
    this.save(conversation);
    this.show();
    if (matchMedia("(pointer: fine)").matches) this.composer.focus();
    const onChange = this.paced(conversation, message);
    await writeAnswer({ api: this.api, conversation, message, model: this.models.current, params, signal: control.signal, onChange });
    this.running.delete(conversation.id);
    this.save(conversation);
    this.ended(conversation, message);
  }

  /** What to do after each piece of an answer: draw at the screen's pace, save at times. */
  paced(conversation, message) {
    let [waiting, saved] = [false, performance.now()];
    return () => {
      if (performance.now() - saved > SAVE_EVERY) {
        saved = performance.now();
        this.save(conversation);
      }
      if (waiting || conversation.id !== this.current.id) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        this.thread.grow(message);
      });
    };
  }

  ended(conversation, message) {
    this.show();
    if (message.error?.param) this.settings.params.showError(message.error.param, message.error.message);
    if (message.error?.code === "model_not_found") this.models.refresh().catch(() => {}); // the next request tells
    if (this.deleted.delete(conversation.id)) return;
    if (conversation.id !== this.current.id) this.toast(`“${titleOf(conversation)}” is answered.`, "info");
    else this.status.textContent = message.error ? "No answer." : `The answer is complete: ${message.content.slice(0, 500)}`;
  }

  stop() {
    this.running.get(this.current.id)?.control.abort();
  }

  /** From now on leave out what doesn't fit, and ask again. */
  trimAndRetry() {
    this.current.trim = true;
    const last = shownMessages(this.current).at(-1);
    // An answer that failed is asked for again in its place; one that was cut stays, and is written on.
    this.run(last);
  }

  export(kind) {
    const name = titleOf(this.current).replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 50) || "conversation";
    if (Object.keys(this.current.messages).length === 0) this.toast("There is nothing in this conversation yet.");
    else if (kind === "md") download(`${name}.md`, toMarkdown(this.current), "text/markdown");
    else download(`${name}.json`, this.conversations.exportText(this.current));
  }

  async importFile(file) {
    try {
      const added = this.conversations.importText(await file.text());
      this.toast(added.length === 1 ? "One conversation imported." : `${added.length} conversations imported.`, "success");
      this.open(added[0]);
    } catch (error) {
      this.toast(error.message, "error");
    }
  }

  delete() {
    const gone = this.current;
    this.stop();
    if (this.conversations.get(gone.id)) {
      if (this.running.has(gone.id)) this.deleted.add(gone.id);
      this.conversations.remove(gone);
      const undo = () => {
        this.deleted.delete(gone.id);
        if (this.save(gone, { touch: false })) this.open(gone);
      };
      this.toast(`“${titleOf(gone)}” was deleted.`, "info", { label: "Undo", run: undo });
    }
    this.open(this.conversations.list[0] ?? newConversation());
  }
}
