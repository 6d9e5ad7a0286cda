/** How the model's guess forms: the likeliest next token after every layer, behind every token (the logit lens). */

import { h, replace } from "./dom.js";
import { roving } from "./roving.js";
import { label, percent, spoken } from "./tokens.js";

/**
 * @typedef {{id: number, text: string, bytes: number[], probability: number}} Guess
 *
 * @returns {{element: HTMLElement, show: (seen: {tokens: {id: number, text: string, bytes: number[]}[], lens: Guess[][][]}) => void}}
 */
export function createLens() {
  const holder = h("div", { class: "lens-scroll" });
  const detail = h("div", { class: "lens-detail", role: "status" });
  let seen = null;
  let chosen = null;

  const choose = (cell) => {
    chosen?.removeAttribute("aria-pressed");
    chosen = cell;
    cell.setAttribute("aria-pressed", "true");
    replace(detail, details(seen, Number(cell.dataset.layer), Number(cell.dataset.position)));
  };
  roving(holder, ".lens-cell", choose);
  holder.addEventListener("click", (event) => {
    const cell = event.target.closest(".lens-cell");
    if (cell) choose(cell);
  });

  return {
    element: h(
      "section",
      { class: "card stack" },
      h("h3", null, "How the guess forms"),
      h("p", { class: "muted" }, "Each column stands behind one token, and each row is one layer further. A cell is what the model would say next if it had to answer there. The last row is its real prediction; ✓ marks what really comes next. Choose a cell for more."),
      detail,
      holder,
      h("p", { class: "help" }, "This is the logit lens: the model’s last step, applied early. Early layers were never trained to be read this way, so their guesses may look odd, and before any layer most models just repeat the token: what counts is where the right one appears, and how surely."),
    ), // prettier-ignore
    show(next) {
      seen = next;
      replace(holder, table(seen));
      const last = holder.querySelectorAll("tbody tr:last-child .lens-cell");
      const cell = last[last.length - 1];
      cell.tabIndex = 0;
      choose(cell);
      holder.scrollTo(holder.scrollWidth, holder.scrollHeight); // where the answer is
    },
  };
}

function rowName(layer, layers) {
  if (layer === 0) return "Before any layer";
  return layer === layers ? `After layer ${layer}: the answer` : `After layer ${layer}`;
}

function table({ tokens, lens }) {
  const layers = lens.length - 1;
  const corner = h("th", { scope: "col", class: "lens-corner" }, "Behind");
  const heads = tokens.map((token) => h("th", { scope: "col", class: "mono" }, label(token)));
  const truth = tokens.map((_, at) => h("td", { class: "mono lens-truth" }, at + 1 < tokens.length ? label(tokens[at + 1]) : "?"));
  return h(
    "table",
    { class: "lens" },
    h("caption", { class: "visually-hidden" }, "The likeliest next token by layer and position"),
    h("thead", null, h("tr", null, corner, heads)),
    h(
      "tbody",
      null,
      lens.map((row, layer) =>
        h(
          "tr",
          null,
          h("th", { scope: "row" }, rowName(layer, layers)),
          row.map((guesses, position) => h("td", null, cell(guesses[0], layer, position, tokens[position + 1]))),
        ),
      ),
    ),
    h("tfoot", null, h("tr", null, h("th", { scope: "row" }, "What comes next"), truth)),
  );
}

function cell(guess, layer, position, next) {
  const right = next !== undefined && next.id === guess.id;
  const name = `${spoken(guess)}, ${percent(guess.probability)}${right ? ", right" : ""}`;
  return h(
    "button",
    {
      class: "lens-cell", type: "button", tabindex: -1, "aria-label": name, dataset: { layer, position },
      style: { "--share": guess.probability },
    },
    h("span", { class: "mono lens-guess" }, label(guess)),
    h("span", { class: "lens-share" }, right ? "✓ " : "", percent(guess.probability)),
  ); // prettier-ignore
}

function details({ tokens, lens }, layer, position) {
  const next = tokens[position + 1];
  return [
    h("p", null, h("strong", null, rowName(layer, lens.length - 1)), `, behind “${label(tokens[position])}”, it would say`),
    h(
      "ol",
      { class: "look-list" },
      lens[layer][position].map((guess) =>
        h(
          "li",
          null,
          h("span", { class: "mono look-name" }, label(guess), guess.id === next?.id && h("span", { class: "help" }, " ✓ comes next")),
          h("span", { class: "look-bar", "aria-hidden": "true" }, h("span", { style: { "--share": guess.probability } })),
          h("span", { class: "look-share" }, percent(guess.probability)),
        ),
      ),
    ),
  ];
}
