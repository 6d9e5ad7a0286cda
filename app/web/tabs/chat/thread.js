/** The shown branch of a conversation: its messages, and a scroll position that respects who is reading further up. */

import { groupVersions } from "../../lib/conversation.js";
import { h, replace } from "../../lib/dom.js";
import { MessageView } from "./message.js";

const NEAR = 48; // px from the end that still count as reading along

/**
 * @param {import("./message.js").MessageActions & {suggest: (text: string) => void}} actions
 * @returns {{element: HTMLElement, show: (conversation: any, path: any[], state: {busy: boolean, context: number|null}) => void,
 *   grow: (message: any) => void, focus: (message: any, action: string) => void, toEnd: () => void}} `grow`: only this
 *   message has become longer; `focus`: one of its buttons
 */
export function createThread(actions) {
  const inner = h("div", { class: "thread-inner" });
  const scroller = h("div", { class: "thread", role: "region", "aria-label": "Conversation", tabindex: 0 }, inner);
  const down = h("button", { class: "button small to-end", type: "button", hidden: true, onclick: toEnd }, "↓ To the end");
  const element = h("div", { class: "thread-place" }, scroller, down);
  /** @type {Map<string, MessageView>} */
  let views = new Map();
  let [shown, along] = [null, true];

  const atEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR;

  function follow() {
    if (along) scroller.scrollTop = scroller.scrollHeight;
    down.hidden = along || atEnd();
  }

  function toEnd() {
    along = true;
    follow();
  }

  scroller.addEventListener("scroll", () => {
    along = atEnd();
    down.hidden = along;
  });
  // A window that is made smaller must not hide what was being read.
  new ResizeObserver(follow).observe(scroller);

  function show(conversation, path, { busy, context }) {
    if (conversation.id !== shown) {
      [shown, along, views] = [conversation.id, true, new Map()];
    }
    views = new Map(path.map((message) => [message.id, views.get(message.id) ?? new MessageView(message, actions)]));
    const beside = groupVersions(conversation);
    for (const [index, message] of path.entries()) {
      const state = { versions: beside.get(message.parent), last: index === path.length - 1, busy, trim: conversation.trim, context };
      views.get(message.id).update(message, state);
    }
    arrange(inner, path.length ? withBorder(path, views) : [welcome(actions)]);
    follow();
  }

  function grow(message) {
    views.get(message.id)?.grow();
    follow();
  }

  return { element, show, grow, focus: (message, action) => views.get(message.id)?.focus(action), toEnd };
}

/** Put these in order into `place` without taking out what stays: focus and selections are in there. */
function arrange(place, elements) {
  for (const old of [...place.children]) if (!elements.includes(old)) old.remove();
  for (const [index, wanted] of elements.entries()) {
    if (place.children[index] !== wanted) place.insertBefore(wanted, place.children[index] ?? null);
  }
}

/** The messages' elements, with a line where the last answer's reading began, if older ones were left out. */
function withBorder(path, views) {
  const from = path.at(-1).from;
  return path.flatMap((message) => {
    const border = message.id === from && h("p", { class: "border" }, "The model no longer reads what is above this line.");
    return border ? [border, views.get(message.id).element] : [views.get(message.id).element];
  });
}

const SUGGESTIONS = ["Tell me a story about a fox and a farmer.", "What can you see from the top of a hill?", "Why does it rain?"];

function welcome(actions) {
  const element = h("div", { class: "welcome stack" });
  replace(
    element,
    h("h2", null, "Talk with your model"),
    h("p", { class: "muted" }, "Everything you write goes to your own server and is kept in this browser, nowhere else."),
    h(
      "div",
      { class: "row" },
      SUGGESTIONS.map((text) => h("button", { class: "button", type: "button", onclick: () => actions.suggest(text) }, text)),
    ),
  );
  return element;
}
