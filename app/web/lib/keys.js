/** The API key: where it is kept, and the dialog that asks for it. */

import { h, uniqueId } from "./dom.js";
import { browserStorage, createStore } from "./store.js";

const NAME = "key";

/**
 * Keys of this server. A key stays in this browser only when the person says so, else until the window is closed.
 * @returns {{current: () => string|null, ask: (wrong: boolean) => Promise<string|null>, manage: () => Promise<void>,
 *   subscribe: (listener: () => void) => void}}
 */
export function createKeys() {
  const lasting = createStore(browserStorage("localStorage"));
  const passing = createStore(browserStorage("sessionStorage"));
  const listeners = new Set();
  let asking = null;
  // The dialog was closed without a key: requests whose refusal comes later, or that nobody asked for, ask no more. What
  // the person does next may.
  let declined = false;
  const act = (event) => {
    if (!event.repeat) declined = false;
  };
  for (const kind of ["click", "keydown"]) addEventListener(kind, act, true);

  const current = () => passing.get(NAME) ?? lasting.get(NAME);

  function keep(key, remember) {
    passing.remove(NAME);
    lasting.remove(NAME);
    if (key !== null) (remember ? lasting : passing).set(NAME, key);
    for (const listener of listeners) listener();
  }

  async function show(text, wrong) {
    const answer = await openDialog({
      text,
      wrong,
      known: current() !== null,
      remember: lasting.get(NAME) !== null,
    });
    declined = answer === null;
    if (answer !== null) keep(answer.key, answer.remember);
    return answer?.key ?? null;
  }

  return {
    current,
    subscribe: (listener) => listeners.add(listener),
    /** Ask for a key; requests that fail at the same time share one dialog, and one answer. */
    ask(wrong) {
      if (declined) return Promise.resolve(null);
      asking ??= show("This server needs an API key. Whoever runs the server can give you one.", wrong).finally(() => {
        asking = null;
      });
      return asking;
    },
    /** Let the person change or forget the key. */
    async manage() {
      await show("The API key that this page sends to the server.", false);
    },
  };
}

/** Resolves to {key, remember}, with key null to forget it; to null when the person closes the dialog. */
function openDialog({ text, wrong, known, remember }) {
  const [title, help, error] = [uniqueId("key-title"), uniqueId("key-help"), uniqueId("key-error")];
  const input = h("input", {
    class: "input",
    type: "password",
    id: uniqueId("key"),
    autocomplete: "off",
    spellcheck: "false",
    "aria-describedby": `${help} ${error}`,
    "aria-invalid": wrong ? "true" : null,
  });
  const box = h("input", { type: "checkbox", checked: remember });
  const mistake = h("p", { class: "error", id: error, role: "alert" }, wrong ? "That key was not accepted. Check it and try again." : "");
  const fields = [
    h("h2", { id: title }, "API key"),
    h("p", { id: help }, text),
    h("div", { class: "field" }, h("label", { for: input.id }, "Key"), input, mistake),
    h("label", { class: "check" }, box, "Keep it in this browser"),
    h("p", { class: "help" }, "Otherwise it is forgotten when this window is closed. Don’t keep it on a shared computer."),
  ];
  const read = () => {
    const key = input.value.trim();
    const problem = keyProblem(key);
    if (problem === null) return { key, remember: box.checked };
    mistake.textContent = problem;
    input.setAttribute("aria-invalid", "true");
    input.focus();
    return null;
  };
  return showForm({ fields, title, known, read, focus: input });
}

/** The dialog around these fields; resolves to what `read` makes of them, which is null where they are wrong. */
function showForm({ fields, title, known, read, focus }) {
  const dialog = h("dialog", { class: "dialog", "aria-labelledby": title });
  return new Promise((resolve) => {
    const finish = (answer) => {
      dialog.remove();
      resolve(answer);
    };
    const submit = (event) => {
      event.preventDefault();
      const answer = read();
      if (answer !== null) finish(answer);
    };
    const forget = () => finish({ key: null, remember: false });
    const buttons = h(
      "div",
      { class: "row end" },
      known && h("button", { class: "button", type: "button", onclick: forget }, "Forget key"),
      h("button", { class: "button", type: "button", onclick: () => finish(null) }, "Cancel"),
      h("button", { class: "button primary", type: "submit" }, "Use key"),
    );
    dialog.append(h("form", { class: "stack", onsubmit: submit }, fields, buttons));
    dialog.addEventListener("cancel", () => finish(null));
    document.body.append(dialog);
    dialog.showModal();
    focus.focus();
  });
}

function keyProblem(key) {
  if (key === "") return "Enter a key.";
  // A header can hold nothing else.
  return /^[\x21-\x7e]+$/.test(key) ? null : "A key has only plain letters, digits and signs, without spaces.";
}
