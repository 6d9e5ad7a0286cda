/** The conversations that this browser keeps: each a value of its own, so that two windows don't undo each other's. */

import { conversationProblem, newConversation, newId, takeIn } from "./conversation.js";
import { exportJson, parseExport, StoreError } from "./store.js";

const NAMES = "conversation.";
const CURRENT = "current-conversation";

/** @typedef {import("./conversation.js").Conversation} Conversation */

/** All of them, read when this is made. */
export class Conversations {
  /** @type {Map<string, Conversation>} */
  #loaded = new Map();
  #listeners = new Set();
  #store;

  /** @param {ReturnType<import("./store.js").createStore>} store */
  constructor(store) {
    this.#store = store;
    for (const name of store.names(NAMES)) this.#read(name.slice(NAMES.length));
    store.subscribe((name) => {
      if (name === "") this.#loaded.clear();
      else if (name.startsWith(NAMES)) this.#read(name.slice(NAMES.length));
      else return;
      this.#tell();
    });
  }

  #read(id) {
    const value = this.#store.get(NAMES + id);
    if (value !== null && conversationProblem(value) === null) this.#loaded.set(id, value);
    else this.#loaded.delete(id);
  }

  #tell() {
    for (const listener of this.#listeners) listener();
  }

  /** All of them, the last used first. */
  get list() {
    return [...this.#loaded.values()].sort((a, b) => (a.updated < b.updated ? 1 : -1));
  }

  /** One by its id, or undefined. Another window may put another object in its place: don't hold on to it. */
  get(id) {
    return this.#loaded.get(id);
  }

  /** The one that was open last, else a new one, which is not kept before something is said. */
  get last() {
    return this.#loaded.get(this.#store.get(CURRENT)) ?? newConversation();
  }

  /** Keep which one is open. Throws StoreError. */
  remember(conversation) {
    this.#store.set(CURRENT, conversation.id);
  }

  /**
   * Keep it, with what another window has said in it. Throws StoreError when there is no room; then it is in the list all
   * the same.
   * @param {Conversation} conversation
   * @param {{touch?: boolean, writing?: import("./conversation.js").Message}} [options] touch: it becomes the last used;
   *   writing: the answer that is being written here
   */
  save(conversation, { touch = true, writing = undefined } = {}) {
    const stored = this.#store.get(NAMES + conversation.id);
    if (stored !== null && conversationProblem(stored) === null) takeIn(conversation, stored, writing);
    if (touch) conversation.updated = new Date().toISOString();
    this.#loaded.set(conversation.id, conversation);
    this.#tell();
    this.#store.set(NAMES + conversation.id, conversation);
  }

  /** Forget it. */
  remove(conversation) {
    this.#loaded.delete(conversation.id);
    this.#store.remove(NAMES + conversation.id);
    this.#tell();
  }

  /** One, or all, as a JSON text that `importText` takes: as they are here, for storage may have had no room for them. */
  exportText(conversation) {
    const all = conversation ? [conversation] : this.list;
    return exportJson(Object.fromEntries(all.map((one) => [NAMES + one.id, one])));
  }

  /** Take in what was exported, beside what is here. Throws StoreError that says what is wrong. Returns the new ones. */
  importText(text) {
    const values = Object.values(parseExport(text));
    if (values.length === 0) throw new StoreError("There is no conversation in the file.");
    for (const [index, value] of values.entries()) {
      const problem = conversationProblem(value);
      if (problem !== null) throw new StoreError(`The file can't be imported: conversation ${index + 1}: ${problem}.`);
    }
    for (const value of values) {
      if (this.#loaded.has(value.id)) value.id = newId();
      this.save(value, { touch: false });
    }
    return values;
  }

  /** Call `listener()` whenever the list has changed, here or in another window. */
  subscribe(listener) {
    this.#listeners.add(listener);
  }
}
