/** What the page keeps in the browser: JSON values under versioned names in localStorage. */

const VERSION = "v1";

/** The browser can't keep something: storage is full or forbidden. The message is for people. */
export class StoreError extends Error {}

/**
 * Where this page's values begin. The path is in it, so that two servers behind one proxy don't mix theirs.
 * @returns {string}
 */
export function storePrefix() {
  return `homegrown.${VERSION}:${new URL(".", document.baseURI).pathname}:`;
}

/** A store over one of the browser's storages. */
class Store {
  #prefix = storePrefix();
  #backing;

  /** @param {Storage|null} storage null where the browser forbids it: then everything is kept until the page is left */
  constructor(storage) {
    this.#backing = storage ?? memoryStorage();
    /** Whether what is kept outlives the page. */
    this.persistent = storage !== null;
  }

  /** The value kept under `name`, else `fallback`; what can't be read as JSON counts as absent. */
  get(name, fallback = null) {
    const text = this.#backing.getItem(this.#prefix + name);
    if (text === null) return fallback;
    try {
      return JSON.parse(text);
    } catch {
      return fallback;
    }
  }

  /** Keep `value`. Throws StoreError when the browser has no room for it. */
  set(name, value) {
    try {
      this.#backing.setItem(this.#prefix + name, JSON.stringify(value));
    } catch {
      throw new StoreError("The browser's storage for this page is full. Export and delete old conversations, then try again.");
    }
  }

  /** Keep nothing under `name`. */
  remove(name) {
    this.#backing.removeItem(this.#prefix + name);
  }

  /** All names that begin with `start`, sorted. */
  names(start = "") {
    const found = [];
    for (let index = 0; index < this.#backing.length; index += 1) {
      const name = this.#backing.key(index);
      if (name?.startsWith(this.#prefix + start)) found.push(name.slice(this.#prefix.length));
    }
    return found.sort();
  }

  /** Call `listener(name)` when another window of this page has changed a value; with "" when it has removed all of them.
   * Returns what ends it. */
  subscribe(listener) {
    const onStorage = (event) => {
      if (event.key === null) listener("");
      else if (event.key.startsWith(this.#prefix)) listener(event.key.slice(this.#prefix.length));
    };
    addEventListener("storage", onStorage);
    return () => removeEventListener("storage", onStorage);
  }
}

/**
 * @param {Storage|null} [storage]
 * @returns {Store}
 */
export function createStore(storage = browserStorage("localStorage")) {
  return new Store(storage);
}

/**
 * Keep what the page can do without, if need be: where there is no room for it, that is told.
 * @param {{store: Store, toast: (text: string, kind: string) => void}} context
 * @param {string} name
 * @param {any} value
 */
export function keepOrTell({ store, toast }, name, value) {
  try {
    store.set(name, value);
  } catch (error) {
    toast(error.message, "error");
  }
}

/** As much of a Storage as is used here, for as long as the page is open. */
function memoryStorage() {
  const values = new Map();
  return {
    getItem: (name) => values.get(name) ?? null,
    setItem: (name, value) => values.set(name, value),
    removeItem: (name) => values.delete(name),
    key: (index) => [...values.keys()][index] ?? null,
    get length() {
      return values.size;
    },
  };
}

/**
 * Values by name as one JSON text that `parseExport` reads.
 * @param {Object<string, any>} values
 */
export function exportJson(values) {
  return JSON.stringify({ format: "homegrown-page", version: 1, saved: new Date().toISOString(), values }, null, 2);
}

/**
 * The values of an exported text, by name. Throws StoreError that says what is wrong.
 * @param {string} text
 * @returns {Object<string, any>}
 */
export function parseExport(text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw new StoreError("The file can't be imported: it is not JSON. Choose a file that this page exported.");
  }
  const values = data?.format === "homegrown-page" && data.version === 1 ? data.values : null;
  if (typeof values !== "object" || values === null || Array.isArray(values)) {
    throw new StoreError("The file can't be imported: it was not exported by this page.");
  }
  return values;
}

/**
 * The browser's storage, or null where it is forbidden.
 * @param {"localStorage"|"sessionStorage"} kind
 */
export function browserStorage(kind) {
  try {
    const storage = window[kind];
    const probe = `${storePrefix()}probe`;
    storage.setItem(probe, "1");
    storage.removeItem(probe);
    return storage;
  } catch {
    return null;
  }
}
