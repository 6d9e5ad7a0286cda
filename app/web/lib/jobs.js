/** Jobs over many texts, kept in this browser (IndexedDB), so that a closed window or a crash loses nothing. */

import { storePrefix } from "./store.js";

const VERSION = 1;

/**
 * @typedef {object} Job
 * @property {string} id
 * @property {number} created milliseconds
 * @property {number} changed milliseconds
 * @property {number} done rows that have a result
 * @property {number} total rows
 * @property {string} name of the file
 * @property {object} [body] everything else; only `load` gives it
 */

/**
 * The jobs that this browser keeps, the newest first, without their rows.
 * @returns {Promise<Job[]>}
 */
export async function listJobs() {
  const jobs = await ask("readonly", (stores) => stores.heads.getAll());
  return jobs.sort((a, b) => b.changed - a.changed);
}

/**
 * Keep a new job.
 * @param {Job} job its `body` can be anything that a browser can clone
 */
export async function saveJob({ body, ...head }) {
  await ask("readwrite", (stores) => {
    stores.bodies.put({ id: head.id, body });
    return stores.heads.put(head);
  });
}

/**
 * Add results to a job; later ones of a place count. Fails where the job is no longer there.
 * @param {string} id
 * @param {[number, object|null][]} entries place and result; null takes one away
 * @param {number} done how many rows have one now
 */
export async function saveResults(id, entries, done) {
  await ask("readwrite", (stores) => {
    stores.results.add({ job: id, entries });
    const head = stores.heads.get(id);
    head.onsuccess = () => {
      if (head.result) stores.heads.put({ ...head.result, done, changed: Date.now() });
      else head.transaction.abort(); // results without a job would stay for ever
    };
    return head;
  });
}

/**
 * A job with its results.
 * @param {string} id
 * @returns {Promise<{job: Job, entries: [number, object|null][]}|null>} null when it is not there
 */
export async function loadJob(id) {
  const head = await ask("readonly", (stores) => stores.heads.get(id));
  if (!head) return null;
  const { body } = await ask("readonly", (stores) => stores.bodies.get(id));
  const parts = await ask("readonly", (stores) => stores.results.index("job").getAll(id)); // in the order they were added
  return { job: { ...head, body }, entries: parts.flatMap((part) => part.entries) };
}

/**
 * Throw a job away.
 * @param {string} id
 */
export async function deleteJob(id) {
  await ask("readwrite", (stores) => {
    stores.bodies.delete(id);
    const keys = stores.results.index("job").getAllKeys(id);
    keys.onsuccess = () => keys.result.forEach((key) => stores.results.delete(key));
    return stores.heads.delete(id);
  });
}

let opening = null;

function open() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(`${storePrefix()}jobs`, VERSION);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("heads", { keyPath: "id" });
      request.result.createObjectStore("bodies", { keyPath: "id" });
      request.result.createObjectStore("results", { autoIncrement: true }).createIndex("job", "job");
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("another window holds an older version open"));
  });
  opening.catch(() => (opening = null)); // it may work another time
  return opening;
}

/** The result of one transaction over all stores, when it is safely written. */
async function ask(mode, work) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(["heads", "bodies", "results"], mode);
    const stores = Object.fromEntries([...transaction.objectStoreNames].map((name) => [name, transaction.objectStore(name)]));
    const request = work(stores);
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error ?? new Error("it was deleted in another window"));
  });
}
