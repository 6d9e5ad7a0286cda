/** The choice of the model in the header, and the line that says when the server can't be reached. */

import { h, replace } from "./dom.js";

const RETRY_SECONDS = 3;

/**
 * Fill `select` with the generating models and keep both in step; ask for the list until the server gives it.
 * @param {HTMLSelectElement} select
 * @param {HTMLElement} notice a status line
 * @param {ReturnType<import("./models.js").createModels>} models
 */
export function connectModelPicker(select, notice, models) {
  let [timer, asking] = [null, false];

  function show() {
    if (models.list.length > 0) fill(select, models);
  }

  function tell(text, ...more) {
    notice.hidden = text === null;
    replace(notice, text, more);
  }

  async function refresh() {
    clearTimeout(timer);
    if (asking) return;
    asking = true;
    try {
      await models.refresh();
      if (!notice.hidden) show(); // it may say that there is no key
      tell(null);
    } catch (error) {
      explain(error);
    } finally {
      asking = false;
    }
  }

  function explain(error) {
    if (error.status === 401) {
      replace(select, h("option", null, "no key"));
      tell("Without a key this server answers nothing.", h("button", { class: "button small", type: "button", onclick: refresh }, "Enter a key"));
      return;
    }
    tell(`${error.message} Trying again…`);
    timer = setTimeout(refresh, RETRY_SECONDS * 1000);
  }

  select.addEventListener("change", () => models.choose(select.value || null));
  models.subscribe(show);
  // Adapters come and go while a page stays open.
  addEventListener("focus", () => {
    if (models.list.length > 0 && notice.hidden) refresh();
  });
  refresh();
}

/** The models that write, as options. */
function fill(select, models) {
  const generating = models.of("generate");
  select.disabled = generating.length < 2;
  if (generating.length === 0) {
    replace(select, h("option", null, "no model that writes"));
    return;
  }
  const options = generating.map((model) => h("option", { value: model.id, title: about(model) }, model.id));
  // With one model there is nothing to leave to the server.
  if (generating.length > 1) options.unshift(h("option", { value: "" }, "Server’s choice"));
  replace(select, options);
  select.value = models.current ?? (generating.length > 1 ? "" : generating[0].id);
  select.title = `Model: ${select.selectedOptions[0].textContent}`;
}

function about(model) {
  const context = `reads ${model.max_model_len} tokens`;
  return model.parent ? `${model.id}: stands on ${model.parent}, ${context}` : `${model.id}: ${context}`;
}
