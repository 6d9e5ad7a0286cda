/** The little Markdown that models write, as elements: headings, lists, code, bold, italics. All else stays as it is. */

import { copyText, h } from "./dom.js";

const FENCE = /^\s{0,3}(```+|~~~+)\s*([\w+-]*)[^`]*$/;
const HEADING = /^(#{1,6})\s+(.+)$/;
const BULLET = /^\s{0,3}[-*+]\s+(.*)$/;
const NUMBER = /^\s{0,3}(\d{1,9})[.)]\s+(.*)$/;
// Code, bold, italics. The signs of italics must touch the words, so that 2 * 3 * 4 and snake_case_names stay whole.
const INLINE = /(`+)([^`]|[^`].*?[^`])\1(?!`)|\*\*(\S(?:.*?\S)?)\*\*|(?<![\w*])\*([^\s*](?:[^*\n]*[^\s*])?)\*(?![\w*])|(?<!\w)_([^\s_](?:[^_\n]*[^\s_])?)_(?!\w)/s;

/**
 * Elements for a text. Line ends inside a paragraph are kept: who wrote them meant them.
 * @param {string} text
 * @returns {HTMLElement[]}
 */
export function renderMarkdown(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let paragraph = [];
  const flush = () => {
    if (paragraph.length) blocks.push(h("p", null, inline(paragraph.join("\n"))));
    paragraph = [];
  };
  for (let at = 0; at < lines.length; ) {
    const special = codeBlock(lines, at) ?? heading(lines, at) ?? list(lines, at, BULLET, "ul") ?? list(lines, at, NUMBER, "ol");
    if (special) {
      flush();
      blocks.push(special.element);
      at = special.next;
    } else {
      if (lines[at].trim() === "") flush();
      else paragraph.push(lines[at]);
      at += 1;
    }
  }
  flush();
  return blocks;
}

function codeBlock(lines, at) {
  const open = FENCE.exec(lines[at]);
  if (!open) return null;
  const close = lines.findIndex((line, index) => index > at && line.trim().startsWith(open[1]) && line.trim().length === open[1].length);
  // While it is being written the end is missing: all that follows is code.
  const end = close < 0 ? lines.length : close;
  const code = lines.slice(at + 1, end).join("\n");
  const copy = h("button", { class: "button small quiet", type: "button" }, "Copy code");
  copy.addEventListener("click", async () => {
    copy.textContent = (await copyText(code)) ? "Copied" : "Can’t copy";
  });
  const label = open[2] ? `Code in ${open[2]}` : "Code";
  const element = h(
    "div",
    { class: "code-block" },
    h("div", { class: "code-head" }, h("span", null, open[2]), copy),
    h("pre", { tabindex: 0, role: "region", "aria-label": label }, h("code", null, code)),
  );
  return { element, next: end + 1 };
}

function heading(lines, at) {
  const found = HEADING.exec(lines[at]);
  // The page's own headings go down to h2; those of an answer stand below.
  return found && { element: h(`h${Math.min(found[1].length + 2, 6)}`, null, inline(found[2])), next: at + 1 };
}

function list(lines, at, pattern, tag) {
  const items = [];
  let next = at;
  for (; next < lines.length; next += 1) {
    const found = pattern.exec(lines[next]);
    if (found) items.push(found.at(-1));
    else if (items.length && /^\s{2,}\S/.test(lines[next])) items[items.length - 1] += `\n${lines[next].trim()}`;
    else break;
  }
  if (items.length === 0) return null;
  const start = tag === "ol" ? NUMBER.exec(lines[at])[1] : null;
  return { element: h(tag, { start }, items.map((item) => h("li", null, inline(item)))), next };
}

function inline(text) {
  const parts = [];
  for (let rest = text; rest !== ""; ) {
    const found = INLINE.exec(rest);
    if (!found) {
      parts.push(rest);
      break;
    }
    parts.push(rest.slice(0, found.index));
    const [whole, , code, bold, star, line] = found;
    if (code !== undefined) parts.push(h("code", null, code));
    else if (bold !== undefined) parts.push(h("strong", null, inline(bold)));
    else parts.push(h("em", null, inline(star ?? line)));
    rest = rest.slice(found.index + whole.length);
  }
  return parts;
}
