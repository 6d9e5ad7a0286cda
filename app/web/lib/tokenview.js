/** A text whose tokens can be chosen one by one, by pointer or by the arrow keys. */

import { h } from "./dom.js";
import { roving } from "./roving.js";
import { spell, spoken, surprise, surpriseLevel } from "./tokens.js";

/** @typedef {import("./tokens.js").Token} Token */

/**
 * A view of tokens. `open(index, element)` is called when one is chosen.
 * @param {{name: string, open: (index: number, element: HTMLElement) => void}} options `name`: for screen readers
 * @returns {{element: HTMLElement, update: (tokens: Token[]) => void, focus: (index: number) => void}}
 */
export function createTokenView({ name, open }) {
  const element = h("div", { class: "tokens", role: "group", "aria-label": name, translate: "no" });
  const keys = roving(element, ".token");
  /** @type {{token: Token, span: HTMLElement}[]} */
  let shown = [];

  const choose = (event) => {
    const span = event.target.closest(".token");
    if (span) open(shown.findIndex((entry) => entry.span === span), span);
  };
  element.addEventListener("click", choose);
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose(event);
  });

  /** Show these tokens; only what differs from before is touched. */
  function update(tokens) {
    for (const { span } of shown.splice(tokens.length)) span.remove();
    const texts = spell(tokens);
    const added = [];
    for (const [index, token] of tokens.entries()) {
      const entry = shown[index];
      if (entry?.token === token) continue;
      const span = entry?.span ?? h("span", { class: "token", role: "button", tabindex: -1, "aria-haspopup": "dialog" });
      if (!entry) added.push(span);
      shown[index] = { token, span };
      draw(span, token, texts[index]);
    }
    element.append(...added);
    keys.refresh();
  }

  return { element, update, focus: (index) => keys.focus(shown[index]?.span) };
}

/** Text, colour and name of one token. */
function draw(span, token, { text, partial }) {
  span.textContent = token.hidden ? "" : text;
  setOrRemove(span, "data-mark", mark(token, text, partial));
  setOrRemove(span, "data-level", typeof token.logprob === "number" ? String(surpriseLevel(token.logprob)) : null);
  span.dataset.source = token.hidden ? "hidden" : token.source;
  // A name of its own only where the text would be read as nothing.
  const blank = token.hidden || text.trim() === "";
  setOrRemove(span, "aria-label", blank ? (token.hidden ? "beginning of the text" : spoken(token)) : null);
  span.title = title(token);
}

/** A sign for what would not be seen. It is drawn by the style sheet, so that it is never copied. */
function mark(token, text, partial) {
  if (token.hidden) return "start";
  if (partial) return "·";
  return text.includes("\n") ? "↵" : null;
}

function title(token) {
  if (token.hidden) return "The model is given this mark in front of the text.";
  const chance = typeof token.logprob === "number" ? `Surprise: ${surprise(token.logprob).toFixed(1)} bits. ` : "";
  return `${chance}Choose it to see what else could stand here.`;
}

function setOrRemove(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else element.setAttribute(name, value);
}
