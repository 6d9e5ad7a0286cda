/** Starts everything: theme, key, models, and the tabs, each loaded when it is first shown. */

import { createApi, isAbort } from "./lib/api.js";
import { h } from "./lib/dom.js";
import { createKeys } from "./lib/keys.js";
import { createModels } from "./lib/models.js";
import { connectModelPicker } from "./lib/picker.js";
import { createStore, StoreError } from "./lib/store.js";
import { createTabs } from "./lib/tabs.js";
import { connectTheme } from "./lib/theme.js";
import { createToast } from "./lib/toast.js";

const find = (id) => document.getElementById(id);

const store = createStore();
const keys = createKeys();
const api = createApi(keys);
const models = createModels(api, store);
const toast = createToast(find("toasts"));

// What nobody caught is told as well: a page that has stopped working must not look as if it worked.
const tellError = (error) => {
  const text = error instanceof StoreError ? error.message : `Something went wrong in the page: ${error?.message ?? error}`;
  if (!isAbort(error)) toast(text, "error");
};
addEventListener("error", (event) => {
  // Without an error it is only the browser's remark that a layout took two rounds.
  if (event.error) tellError(event.error);
});
addEventListener("unhandledrejection", (event) => tellError(event.reason));

connectTheme(find("theme"), store);
connectModelPicker(find("model"), find("notice"), models);

const keyButton = find("key");
const showKeyButton = () => {
  keyButton.hidden = keys.current() === null;
};
keys.subscribe(showKeyButton);
keyButton.addEventListener("click", () => keys.manage());
showKeyButton();

if (!store.persistent) toast("This browser keeps nothing for this page: conversations are lost when it is closed.", "error");

createTabs(document.querySelector("[role=tablist]"), { api, models, store, toast, h });
