/** Write: a text goes on, and every token of it can be opened, judged and exchanged. */

import { createAlternatives } from "../lib/alternatives.js";
import { copyText, h, onPress, setEnabled, uniqueId } from "../lib/dom.js";
import { Draft } from "../lib/draft.js";
import { createParams } from "../lib/params.js";
import { keepOrTell } from "../lib/store.js";
import { SURPRISE_BOUNDS, summarise, textOf } from "../lib/tokens.js";
import { createTokenView } from "../lib/tokenview.js";
import { Writer } from "../lib/writer.js";

const KEPT = "write.text";
const FIRST_TEXT = "Once upon a time";
const ENDINGS = {
  stop: "The model ended the text here.",
  length: "It was cut at the longest answer set: write on to go further.",
  full: "The model can read no more: its context is full.",
  stopped: "Stopped.",
};
// No stop texts: they would hide tokens that were written.
const FIELDS = ["temperature", "max_tokens", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed"];

/**
 * @param {HTMLElement} element
 * @param {Object<string, any>} context {api, models, store, toast, h}
 */
export function mount(element, context) {
  const { models, store } = context;
  const draft = new Draft();
  const params = createParams({ store, name: "write", fields: FIELDS, initial: { max_tokens: 60 } });
  const view = createView(params);
  const state = { editing: true, busy: null, outcome: null };
  const typed = () => (state.editing ? view.area.value : null);
  const keep = () => keepOrTell(context, KEPT, typed() ?? textOf(draft.tokens));
  const writer = createWriter(context, { draft, params, view, state, keep, refresh });
  const { tokens, alternatives } = createTokens(draft, writer);
  view.text.append(tokens.element);
  element.append(view.element, alternatives.element);

  function refresh() {
    show(view, draft, state);
    if (!state.editing) tokens.update(draft.tokens);
  }

  connect(view, { draft, writer, state, typed, refresh, toast: context.toast });
  draft.subscribe(() => {
    state.editing = draft.tokens.length === 0;
    if (state.editing) view.area.value = "";
    refresh();
    if (!state.busy) keep(); // else at the end: not with every token
  });
  addEventListener("pagehide", () => state.busy && keep()); // what has come so far outlives the page
  view.area.addEventListener("input", keep);
  models.subscribe(refresh);
  view.area.value = store.get(KEPT, FIRST_TEXT);
  refresh();
}

/** What works on the draft, and tells the view how it goes. */
function createWriter({ api, models }, { draft, params, view, state, keep, refresh }) {
  return new Writer(
    { api, models, draft, params: params.values },
    {
      busy(what) {
        state.busy = what;
        if (what) {
          view.error.textContent = "";
          state.outcome = null;
        } else keep();
        refresh();
      },
      failed(error) {
        if (!(error.param && params.showError(error.param, error.message))) view.error.textContent = error.message;
        else view.settings.open = true;
      },
      wrote(outcome) {
        state.outcome = outcome;
      },
    },
  );
}

/** The text token by token, and what could stand in each place. */
function createTokens(draft, writer) {
  // The button that was chosen is gone: the token that stands there now has the focus.
  const andFocus =
    (act) =>
    (index, ...rest) => {
      act(index, ...rest);
      tokens.focus(index);
    };
  const alternatives = createAlternatives({
    choose: andFocus((...choice) => writer.choose(...choice)),
    keep: andFocus((index) => writer.keep(index)),
    load: (index, signal) => writer.alternatives(index, signal),
  });
  const tokens = createTokenView({
    name: "The text, token by token",
    open: (index, anchor) => alternatives.open(index, draft.tokens[index], anchor),
  });
  return { tokens, alternatives };
}

/** What the buttons and keys do. */
function connect(view, { draft, writer, state, typed, refresh, toast }) {
  const write = () => (state.busy ? writer.stop() : writer.write(typed()));
  const edit = () => {
    state.editing = true;
    view.area.value = textOf(draft.tokens);
    refresh();
    view.area.focus();
  };
  const back = async () => {
    if (textOf(draft.tokens) !== view.area.value || draft.tokens.length === 0) await writer.read(view.area.value);
    else state.editing = false;
    refresh();
  };
  view.write.addEventListener("click", (event) => {
    if (!state.busy || event.detail < 2) write(); // the second of two clicks was not meant to stop what the first began
  });
  onPress(view.score, () => writer.score(typed()));
  onPress(view.edit, () => (state.editing ? back() : edit()));
  onPress(view.undo, () => draft.undo());
  onPress(view.redo, () => draft.redo());
  onPress(view.clear, () => {
    draft.commit([]);
    view.area.focus();
  });
  view.copy.addEventListener("click", async () => {
    const copied = await copyText(typed() ?? textOf(draft.tokens));
    toast(copied ? "Text copied." : "The browser did not let the text be copied: select it and copy it by hand.", copied ? "success" : "error");
  });
  view.colours.addEventListener("change", refresh);
  view.element.addEventListener("keydown", (event) => onKey(event, { draft, writer, state, write }));
}

function onKey(event, { draft, writer, state, write }) {
  const command = event.ctrlKey || event.metaKey;
  if (event.key === "Escape" && state.busy) writer.stop();
  else if (command && event.key === "Enter" && !state.busy) write();
  else if (command && event.key.toLowerCase() === "z" && !event.target.matches("input, textarea") && !state.busy) {
    if (event.shiftKey) draft.redo();
    else draft.undo();
  } else return;
  event.preventDefault();
}

/** The parts of the tab. */
function createView(params) {
  const button = (text, props = {}) => h("button", { class: "button", type: "button", ...props }, text);
  const area = h("textarea", { class: "input write-area", id: uniqueId("write"), rows: 8, spellcheck: "false" });
  const areaField = h("div", { class: "field" }, h("label", { for: area.id }, "Your text"), area);
  const colours = h("input", { type: "checkbox", checked: true });
  const view = {
    area, areaField, colours,
    write: button("Write", { class: "button primary write-go", title: "Ctrl+Enter" }),
    score: button("Score", { title: "Find how likely the model thinks each token of this text" }),
    edit: button("Edit"),
    undo: button("Undo", { title: "Ctrl+Z" }),
    redo: button("Redo", { title: "Ctrl+Shift+Z" }),
    copy: button("Copy"),
    clear: button("Clear"),
    error: h("p", { class: "error", role: "alert" }),
    status: h("p", { class: "help", role: "status" }),
    text: h("div", { class: "card write-text" }),
    legend: h("div", { class: "row legend" }, h("label", { class: "check" }, colours, "Colour by surprise"), legend()),
    settings: h("details", { class: "card more write-settings" }, h("summary", null, "How it writes"), params.element),
  }; // prettier-ignore
  view.element = h(
    "div",
    { class: "page stack write" },
    h("h2", null, "Write"),
    h("p", { class: "muted" }, "The model goes on where your text ends, a token (a piece of a word) at a time. Choose any token to see what else could stand there, with the chance the model gave it; take another one and the text goes on from there."),
    h("div", { class: "row write-bar" }, view.write, view.score, view.edit, view.undo, view.redo, view.copy, view.clear),
    view.error,
    areaField,
    view.text,
    view.status,
    view.legend,
    view.settings,
  ); // prettier-ignore
  return view;
}

function legend() {
  const names = [...SURPRISE_BOUNDS, null].map((bound, level) => {
    if (bound === null) return `${SURPRISE_BOUNDS.at(-1)}+ bits`;
    return level === 0 ? `under ${bound}` : `${SURPRISE_BOUNDS[level - 1]}–${bound}`;
  });
  return h(
    "ul",
    { class: "legend-list", "aria-label": "Surprise in bits: the colours" },
    names.map((name, level) => h("li", null, h("span", { class: "swatch", dataset: { level } }), name)),
  );
}

/** Bring the parts in line with what is. */
function show(view, draft, { editing, busy, outcome }) {
  const { tokens } = draft;
  view.areaField.hidden = !editing;
  view.text.hidden = view.legend.hidden = editing;
  view.area.readOnly = busy !== null;
  view.text.setAttribute("aria-busy", String(busy !== null));
  view.text.classList.toggle("plain", !view.colours.checked);
  view.write.textContent = busy ? "Stop" : editing ? "Write" : "Write on";
  view.edit.textContent = editing ? "Show tokens" : "Edit";
  for (const other of [view.score, view.edit, view.clear]) setEnabled(other, busy === null);
  setEnabled(view.undo, busy === null && draft.canUndo);
  setEnabled(view.redo, busy === null && draft.canRedo);
  view.status.textContent = busy ? (busy === "writing" ? "Writing…" : "Reading…") : editing ? "" : describe(tokens, outcome);
}

function describe(tokens, outcome) {
  const sum = summarise(tokens);
  const parts = [`${tokens.length} tokens`];
  if (sum) {
    const each = `${sum.bits.toFixed(2)} bits of surprise a token (perplexity ${sum.perplexity.toFixed(1)})`;
    parts.push(sum.tokens < tokens.length ? `the ${sum.tokens} with a known chance: ${each}` : each);
    if (sum.bitsPerByte !== null) parts.push(`${sum.bitsPerByte.toFixed(2)} bits a byte`);
  }
  if (outcome?.speed) parts.push(`${Math.round(outcome.speed)} tokens/s`);
  return `${outcome ? `${ENDINGS[outcome.reason]} ` : ""}${parts.join(" · ")}`;
}
