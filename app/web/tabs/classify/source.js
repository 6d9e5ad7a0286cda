/** Where many texts come from: a file or pasted text, and which column of it is read. */

import { h, replace, uniqueId } from "../../lib/dom.js";
import { decodeText, FORMATS, guessFormat, guessTextColumn, readTable, TableError } from "../../lib/tables.js";
import { formatCount } from "../../lib/units.js";

const PREVIEW = 5; // rows
const LONGEST = 160; // characters of a cell in the preview

/**
 * @param {object} options
 * @param {(source: {name: string, marked: boolean, table: import("../../lib/tables.js").Table, column: number,
 *   right: number|null}) => void} options.onStart right: the column that already has the right labels, if one does
 */
export function createSource({ onStart }) {
  const error = h("p", { class: "error", role: "alert" });
  const preview = h("div", { class: "stack" });
  const intake = createIntake({ onFile: openFile, onText: (text) => open({ name: "pasted text", text, notices: [], marked: false }) });
  const element = h("div", { class: "stack" }, intake.element, error, preview);

  async function openFile(file) {
    error.textContent = "";
    try {
      open({ name: file.name, ...decodeText(await file.arrayBuffer(), file.name) });
    } catch (problem) {
      tell(problem instanceof TableError ? problem.message : `${file.name} can’t be read: ${problem.message}`);
    }
  }

  function open(content) {
    show(content, { format: guessFormat(content.text, content.name) });
  }

  function show(content, options) {
    const before = preview.contains(document.activeElement) ? document.activeElement.dataset.control : null;
    const first = preview.childElementCount === 0;
    const { table, problem } = readOrSay(content, options);
    tell(problem);
    intake.hide();
    const again = (changes) => show(content, { ...options, ...changes });
    replace(preview, createPreview({ content, table, options, again, back, onStart }));
    // What was pressed is gone: its successor has the focus, or else what has come.
    preview.querySelector(first ? "h3" : `[data-control="${before}"]`)?.focus();
  }

  function tell(text) {
    error.textContent = text;
  }

  function reset() {
    error.textContent = "";
    preview.replaceChildren();
    intake.show();
  }

  function back() {
    reset();
    intake.focus();
  }

  return { element, reset, focus: () => (intake.element.hidden ? preview.querySelector("h3").focus() : intake.focus()) };
}

/** The table, or else null, and what is wrong. */
function readOrSay(content, options) {
  try {
    return { table: readTable(content.text, options), problem: "" };
  } catch (problem) {
    if (!(problem instanceof TableError)) throw problem;
    return { table: null, problem: `${content.name}: ${problem.message}` };
  }
}

function createIntake({ onFile, onText }) {
  const ids = { file: uniqueId("file"), text: uniqueId("paste") };
  const file = h("input", { type: "file", id: ids.file, class: "visually-hidden", accept: ".csv,.tsv,.tab,.txt,.jsonl,.ndjson,.json,text/*" });
  const drop = h(
    "div",
    { class: "drop" },
    file,
    h("label", { class: "button", for: ids.file }, "Choose a file"),
    h("p", { class: "help" }, "or drop one here: CSV, TSV, JSON lines, or a text a line"),
  );
  const area = h("textarea", { class: "input", id: ids.text, rows: 5, placeholder: "One text a line, or cells copied from a spreadsheet" });
  const read = h("button", { class: "button", type: "button", disabled: true, onclick: () => onText(area.value) }, "Read it");
  area.addEventListener("input", () => (read.disabled = !area.value.trim()));
  file.addEventListener("change", () => {
    if (file.files.length) onFile(file.files[0]);
    file.value = ""; // the same file can be chosen again
  });
  const element = h("div", { class: "stack" }, drop, h("div", { class: "field" }, h("label", { for: ids.text }, "Or paste texts"), area), h("div", null, read));
  const mark = (on) => drop.classList.toggle("over", on);
  element.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return; // marked text goes into the field as ever
    event.preventDefault();
    mark(true);
  });
  element.addEventListener("dragleave", () => mark(false));
  element.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    mark(false);
    onFile(event.dataTransfer.files[0]);
  });
  return {
    element,
    hide: () => (element.hidden = true),
    show: () => (element.hidden = false),
    focus: () => file.focus(),
  };
}

function createPreview({ content, table, options, again, back, onStart }) {
  const formats = picker("Read as", Object.entries(FORMATS), options.format, (format) => again({ format, header: undefined }));
  const head = [h("h3", { tabindex: -1 }, content.name), h("button", { class: "button small", type: "button", onclick: back }, "Take another")];
  if (table === null) return [h("div", { class: "row spread" }, head), formats.element];
  let column = guessTextColumn(table);
  const sample = h("div", { class: "scroll-x", tabindex: "0", role: "group", "aria-label": "The first rows" });
  const blank = h("p", { class: "help" });
  const draw = () => {
    replace(sample, sampleTable(table, column));
    const empty = table.rows.filter((row) => !row.error && !row.cells[column].trim()).length;
    blank.textContent = empty ? `${formatCount(empty, "row has", "rows have")} no text in this column.` : "";
  };
  const columns = picker("Texts are in", table.columns.map((name, i) => [String(i), name]), String(column), (value) => {
    column = Number(value);
    draw();
  });
  let right = null;
  const rights = picker("Right labels are in", [["", "no column"], ...table.columns.map((name, i) => [String(i), name])], "", (value) => {
    right = value === "" ? null : Number(value);
  });
  const header =
    table.header !== null &&
    h("label", { class: "check" }, h("input", { type: "checkbox", "data-control": "header", checked: table.header, onchange: (event) => again({ header: event.target.checked }) }), "The first row has the columns’ names");
  const notices = [...content.notices, ...table.notices].map((notice) => h("p", { class: "help" }, notice));
  const start = h("button", { class: "button primary", type: "button" }, `Classify ${formatCount(table.rows.length, "row")}`);
  start.addEventListener("click", () => onStart({ name: content.name, marked: content.marked, table, column, right }));
  draw();
  const choices = [formats, ...(table.columns.length > 1 ? [columns, rights] : [])].map((choice) => choice.element);
  return [h("div", { class: "row spread" }, head), h("div", { class: "row choices" }, choices), header, notices, sample, blank, h("div", null, start)];
}

function picker(label, options, value, onChange) {
  const id = uniqueId("pick");
  const select = h("select", { class: "select", id, value, "data-control": label, onchange: () => onChange(select.value) }, options.map(([key, text]) => h("option", { value: key }, text)));
  return { element: h("div", { class: "field" }, h("label", { for: id }, label), select) };
}

function sampleTable(table, column) {
  const mark = (i) => (i === column ? "picked" : null);
  const clip = (text) => (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);
  const rows = table.rows.slice(0, PREVIEW);
  return h(
    "table",
    { class: "table sample" },
    h("thead", null, h("tr", null, table.columns.map((name, i) => h("th", { scope: "col", class: mark(i) }, name)))),
    h("tbody", null, rows.map((row) => h("tr", null, row.cells.map((cell, i) => h("td", { class: mark(i) }, clip(cell)))))),
  );
}
