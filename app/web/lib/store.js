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

/**
 * A store over one of the browser's storages.
 * @param {Storage|null} [storage] null where the browser forbids it: then everything is kept until the page is left
 */
export function createStore(storage = browserStorage("localStorage")) {
  const prefix = storePrefix();
  const memory = new Map();
  const backing = storage ?? {
    getItem: (name) => memory.get(name) ?? null,
    setItem: (name, value) => memory.set(name, value),
    removeItem: (name) => memory.delete(name),
    get length() {
      return memory.size;
    },
    key: (index) => [...memory.keys()][index] ?? null,
  };

  /** The value kept under `name`, else `fallback`; what can't be read as JSON counts as absent. */
  function get(name, fallback = null) {
    const text = backing.getItem(prefix + name);
    if (text === null) return fallback;
    try {
      return JSON.parse(text);
    } catch {
      return fallback;
    }
  }

  /** Keep `value`. Throws StoreError when the browser has no room for it. */
  function set(name, value) {
    try {
      backing.setItem(prefix + name, JSON.stringify(value));
    } catch {
      throw new StoreError("The browser's storage for this page is full. Export and delete old conversations, then try again.");
    }
  }

  /** Keep nothing under `name`. */
  function remove(name) {
    backing.removeItem(prefix + name);
  }

  /** All names that begin with `start`, sorted. */
  function names(start = "") {
    const found = [];
    for (let index = 0; index < backing.length; index += 1) {
      const name = backing.key(index);
      if (name?.startsWith(prefix + start)) found.push(name.slice(prefix.length));
    }
    return found.sort();
  }

  /** Call `listener(name)` when another window of this page has changed a value. Returns what ends it. */
  function subscribe(listener) {
    const onStorage = (event) => {
      if (event.key === null) listener("");
      else if (event.key.startsWith(prefix)) listener(event.key.slice(prefix.length));
    };
    addEventListener("storage", onStorage);
    return () => removeEventListener("storage", onStorage);
  }

  /** All values whose names begin with `start`, as one JSON text that `parseExport` reads. */
  function exportJson(start = "") {
    const values = Object.fromEntries(names(start).map((name) => [name, get(name)]));
    return JSON.stringify({ format: "homegrown-page", version: 1, saved: new Date().toISOString(), values }, null, 2);
  }

  return { get, set, remove, names, subscribe, exportJson, persistent: storage !== null };
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
