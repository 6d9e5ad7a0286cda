/** The conversations that this browser keeps: each a value of its own, so that two windows don't undo each other's. */

import { conversationProblem, newConversation, newId } from "./conversation.js";
import { parseExport, StoreError } from "./store.js";

const NAMES = "conversation.";
const CURRENT = "current-conversation";

/**
 * @param {ReturnType<import("./store.js").createStore>} store
 */
export function createConversations(store) {
  /** @type {Map<string, import("./conversation.js").Conversation>} */
  const loaded = new Map();
  const listeners = new Set();
  const tell = () => listeners.forEach((listener) => listener());

  function read(id) {
    const value = store.get(NAMES + id);
    return value !== null && conversationProblem(value) === null ? value : null;
  }

  for (const name of store.names(NAMES)) {
    const value = read(name.slice(NAMES.length));
    if (value !== null) loaded.set(value.id, value);
  }

  store.subscribe((name) => {
    if (name !== "" && !name.startsWith(NAMES)) return;
    const id = name.slice(NAMES.length);
    const value = name === "" ? null : read(id);
    if (value === null) loaded.delete(id);
    else loaded.set(id, value);
    tell();
  });

  return {
    /** All of them, the last used first. */
    get list() {
      return [...loaded.values()].sort((a, b) => (a.updated < b.updated ? 1 : -1));
    },
    /** One by its id, or undefined. Another window may put another object in its place: don't hold on to it. */
    get: (id) => loaded.get(id),
    /** The one that was open last, else a new one, which is not kept before something is said. */
    get last() {
      return loaded.get(store.get(CURRENT)) ?? newConversation();
    },
    /** Keep which one is open. */
    remember(conversation) {
      store.set(CURRENT, conversation.id);
    },
    /**
     * Keep it. Throws StoreError when there is no room.
     * @param {import("./conversation.js").Conversation} conversation
     * @param {{touch?: boolean}} [options] touch: it becomes the last used
     */
    save(conversation, { touch = true } = {}) {
      if (touch) conversation.updated = new Date().toISOString();
      loaded.set(conversation.id, conversation);
      store.set(NAMES + conversation.id, conversation);
      tell();
    },
    /** Forget it. */
    remove(conversation) {
      loaded.delete(conversation.id);
      store.remove(NAMES + conversation.id);
      tell();
    },
    /** One, or all, as a JSON text that `importText` takes. */
    exportText: (conversation) => store.exportJson(NAMES + (conversation?.id ?? "")),
    /** Take in what was exported, beside what is here. Throws StoreError that says what is wrong. Returns the new ones. */
    importText(text) {
      const values = Object.values(parseExport(text));
      if (values.length === 0) throw new StoreError("There is no conversation in the file.");
      for (const [index, value] of values.entries()) {
        const problem = conversationProblem(value);
        if (problem !== null) throw new StoreError(`The file can't be imported: conversation ${index + 1}: ${problem}.`);
      }
      for (const value of values) {
        if (loaded.has(value.id)) value.id = newId();
        this.save(value, { touch: false });
      }
      return values;
    },
    /** Call `listener()` whenever the list has changed, here or in another window. */
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
