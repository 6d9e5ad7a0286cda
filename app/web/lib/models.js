/** The models that this server has, and which of them the person has chosen to write with. */

const CHOICE = "model";

/**
 * @typedef {Object} Model
 * @property {string} id the name that requests give
 * @property {"generate"|"classify"} task what it gives: text, or labels
 * @property {string|null} parent the model that an adapter or an alias stands on
 * @property {number} max_model_len context in tokens: prompt and answer together
 */

/**
 * The list of models, kept up to date, with the choice among those that generate.
 * @param {ReturnType<import("./api.js").createApi>} api
 * @param {ReturnType<import("./store.js").createStore>} store
 */
export function createModels(api, store) {
  /** @type {Model[]} */
  let list = [];
  let choice = store.get(CHOICE);
  const listeners = new Set();

  const of = (task) => list.filter((model) => model.task === task);
  const tell = () => listeners.forEach((listener) => listener());

  return {
    /** All models; empty before the first `refresh`. */
    get list() {
      return list;
    },
    /** Those of one task. */
    of,
    /**
     * Name of the chosen generating model, to be sent as `model`; null: leave `model` out, the server picks (for a chat its
     * model for conversations, which may be an adapter; else its base).
     * @returns {string|null}
     */
    get current() {
      return of("generate").some((model) => model.id === choice) ? choice : null;
    },
    /** Context in tokens of the chosen model; null before the list is there. */
    get context() {
      const chosen = list.find((model) => model.id === this.current) ?? of("generate")[0] ?? list[0];
      return chosen?.max_model_len ?? null;
    },
    /** Choose a generating model by name; null leaves it to the server. */
    choose(id) {
      choice = id;
      tell();
      store.set(CHOICE, id);
    },
    /** Ask the server again. Throws ApiError. */
    async refresh({ signal } = {}) {
      const fresh = (await api.get("v1/models", { signal })).data;
      const changed = JSON.stringify(fresh) !== JSON.stringify(list);
      list = fresh;
      if (changed) tell();
    },
    /** Call `listener()` whenever the list or the choice changes. Returns what ends it. */
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
