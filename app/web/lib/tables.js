/** Files and pasted text as tables: rows with named columns, whatever format they come in. */

import { CsvError, guessDelimiter, parseDelimited } from "./csv.js";

/** The formats that `readTable` knows, as a person would call them. */
export const FORMATS = { lines: "One text a line", csv: "CSV", tsv: "TSV (tabs)", jsonl: "JSON lines" };

/** The largest file that is read: more belongs on the command line. */
export const MOST_BYTES = 64 * 1024 * 1024;

/** What can't be read, in words for a person. */
export class TableError extends Error {
  constructor(message) {
    super(message);
    this.name = "TableError";
  }
}

/**
 * @typedef {object} Row
 * @property {number} line where it begins, from 1
 * @property {string[]} cells one for each column
 * @property {string} [error] why it can't be read, where it can't
 *
 * @typedef {object} Table
 * @property {string} format a key of FORMATS
 * @property {boolean|null} header whether the first record names the columns; null where the format has no such thing
 * @property {string[]} columns
 * @property {Row[]} rows
 * @property {string[]} notices what a person should know of how it was read
 */

const SIGNATURES = [
  [[0x50, 0x4b, 0x03, 0x04], "looks like an Excel or OpenDocument workbook; save it as CSV (UTF-8) there"],
  [[0x50, 0x41, 0x52, 0x31], "is a Parquet file, which the page can't read; `homegrown classify` on the command line can"],
  [[0x1f, 0x8b], "is compressed; unpack it first"],
  [[0x28, 0xb5, 0x2f, 0xfd], "is compressed; unpack it first"],
];

/**
 * The text of a file's bytes: UTF-8, or UTF-16 with its mark; anything else is taken for Windows-1252, with a notice.
 * @param {ArrayBuffer} buffer
 * @param {string} name for errors
 * @returns {{text: string, notices: string[], marked: boolean}} marked: it began with a byte order mark
 * @throws {TableError} when it is no text
 */
export function decodeText(buffer, name) {
  const bytes = new Uint8Array(buffer);
  if (bytes.length > MOST_BYTES) {
    throw new TableError(`${name} has more than ${MOST_BYTES >> 20} MiB; cut it up, or use \`homegrown classify\` on the command line.`);
  }
  for (const [signature, what] of SIGNATURES) {
    if (signature.every((byte, i) => bytes[i] === byte)) throw new TableError(`${name} ${what}.`);
  }
  const wide = bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : bytes[0] === 0xfe && bytes[1] === 0xff ? "utf-16be" : null;
  const marked = wide !== null || (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf);
  if (wide) return { text: new TextDecoder(wide).decode(bytes), notices: [`Read as ${wide.toUpperCase()}.`], marked };
  if (bytes.includes(0)) throw new TableError(`${name} is no text file: it has zero bytes in it. Save it as CSV (UTF-8).`);
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes), notices: [], marked };
  } catch {
    const notice = "The file is not UTF-8; it was read as Windows-1252. If letters look wrong, save it as UTF-8 and choose it again.";
    return { text: new TextDecoder("windows-1252").decode(bytes), notices: [notice], marked };
  }
}

/**
 * What format a text most likely has.
 * @param {string} text
 * @param {string} [name] of the file that it comes from, if from one
 * @returns {string} a key of FORMATS
 */
export function guessFormat(text, name = "") {
  const ending = name.toLowerCase().match(/\.(\w+)$/)?.[1];
  const known = { csv: "csv", tsv: "tsv", tab: "tsv", jsonl: "jsonl", ndjson: "jsonl", json: "jsonl" }[ending];
  if (known) return known;
  const lines = text.slice(0, 65536).split(/\r\n|\r|\n/).filter((line) => line.trim()).slice(0, 20);
  if (lines.length && /^\s*[[{]/.test(lines[0]) && isJson(lines[0])) return "jsonl";
  const guess = lines.length > 1 ? guessDelimiter(`${lines.join("\n")}\n`) : { columns: 1, delimiter: "," };
  if (guess.columns > 1 && guess.delimiter === "\t") return "tsv";
  // Sentences have commas too: only a first line that reads like names of columns makes it a CSV.
  const first = guess.columns > 1 ? parseDelimited(lines[0], guess.delimiter)[0].cells : [];
  return first.length > 1 && looksLikeHeader(first) && first.every((cell) => cell === cell.trim()) ? "csv" : "lines";
}

/**
 * A text as a table.
 * @param {string} text
 * @param {{format: string, header?: boolean}} options header: left out, it is guessed
 * @returns {Table}
 * @throws {TableError} when there is nothing in it, or it can't be read
 */
export function readTable(text, { format, header }) {
  if (!text.trim()) throw new TableError("There is no text in it.");
  if (format === "lines") return readLines(text);
  if (format === "jsonl") return readJson(text);
  return readDelimited(text, format, header);
}

/**
 * The column that most likely has the texts: the one with the longest cells.
 * @param {Table} table
 * @returns {number} its place
 */
export function guessTextColumn(table) {
  const sample = table.rows.slice(0, 200);
  const scores = table.columns.map((name, i) => {
    const bonus = /^(text|texts|review|body|message|content|sentence|comment|input|question)$/i.test(name) ? 2 : 1;
    return bonus * sample.reduce((sum, row) => sum + (Number.isNaN(Number(row.cells[i])) ? row.cells[i].length : 0), 0);
  });
  return Math.max(0, scores.indexOf(Math.max(...scores)));
}

function readLines(text) {
  const rows = text
    .replace(/^\ufeff/, "")
    .split(/\r\n|\r|\n/)
    .map((cell, i) => ({ line: i + 1, cells: [cell] }))
    .filter((row) => row.cells[0].trim());
  return { format: "lines", header: null, columns: ["text"], rows, notices: [] };
}

function readDelimited(text, format, header) {
  const delimiter = format === "tsv" ? "\t" : guessDelimiter(text.slice(0, 1 << 20)).delimiter;
  const notices = [];
  let records;
  try {
    records = parseDelimited(text, delimiter);
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    if (format !== "tsv") throw new TableError(`${error.message}.`);
    records = parseDelimited(text, delimiter, { quotes: false }); // many programs write TSV without any quoting
    notices.push("Quotes were read as plain characters, since they are not closed as CSV wants it.");
  }
  const named = header ?? (records.length > 1 && looksLikeHeader(records[0].cells));
  const first = named ? records.shift().cells : [];
  if (!records.length) throw new TableError("There is a row with the columns' names, and none with texts.");
  const width = records.reduce((most, record) => Math.max(most, record.cells.length), first.length);
  const wanted = named ? first.length : width;
  const odd = records.filter((record) => record.cells.length !== wanted);
  if (odd.length) {
    const rows = odd.length === 1 ? "1 row has" : `${odd.length} rows have`;
    notices.push(`${rows} another number of cells than the ${named ? "first row" : "longest"} (${wanted}), first on line ${odd[0].line}. Missing cells were left empty.`);
  }
  const rows = records.map(({ line, cells }) => ({ line, cells: [...cells, ...Array(width - cells.length).fill("")] }));
  return { format, header: named, columns: nameColumns(first, width), rows, notices };
}

function nameColumns(names, width) {
  const used = new Set();
  return Array.from({ length: width }, (_, i) => freeName(names[i]?.trim() || `column ${i + 1}`, used));
}

/**
 * `name`, or with a number behind it where it is in `used`; it is added to them.
 * @param {string} name
 * @param {Set<string>} used
 * @returns {string}
 */
export function freeName(name, used) {
  let free = name;
  for (let i = 2; used.has(free); i += 1) free = `${name} ${i}`;
  used.add(free);
  return free;
}

function looksLikeHeader(cells) {
  const plain = cells.every((cell) => cell.trim() && cell.trim().length <= 40 && Number.isNaN(Number(cell)) && !/[.!?]$/.test(cell.trim()));
  const words = cells.every((cell) => cell.trim().split(/\s+/).length <= 3);
  return plain && words && new Set(cells).size === cells.length;
}

function readJson(text) {
  const body = text.replace(/^\ufeff/, "");
  const entries = /^\s*\[/.test(body) ? wholeArray(body) : jsonLines(body);
  const columns = new Set();
  for (const { value } of entries) for (const name of Object.keys(value ?? {})) columns.add(name);
  if (!columns.size) throw new TableError(entries.find((entry) => entry.error)?.error ?? "There is no object in it.");
  const names = [...columns];
  const rows = entries.map(({ line, value, error }) => ({
    line,
    cells: names.map((name) => (value && Object.hasOwn(value, name) ? jsonCell(value[name]) : "")),
    ...(error ? { error } : {}),
  }));
  return { format: "jsonl", header: null, columns: names, rows, notices: [] };
}

function wholeArray(body) {
  let values;
  try {
    values = JSON.parse(body);
  } catch (error) {
    throw new TableError(`It is no JSON: ${error.message}. Give an array of objects, or one object a line.`);
  }
  return values.map((value, i) => ({ line: i + 1, ...jsonObject(value, `Entry ${i + 1}`) }));
}

function jsonLines(body) {
  const entries = [];
  for (const [i, line] of body.split(/\r\n|\r|\n/).entries()) {
    if (!line.trim()) continue;
    try {
      entries.push({ line: i + 1, ...jsonObject(JSON.parse(line), `Line ${i + 1}`) });
    } catch (error) {
      entries.push({ line: i + 1, error: `Line ${i + 1} is no JSON: ${error.message}` });
    }
  }
  return entries;
}

function jsonObject(value, where) {
  if (typeof value === "string") return { value: { text: value } };
  if (value && typeof value === "object" && !Array.isArray(value)) return { value };
  return { error: `${where} is no JSON object: write {"text": "..."}` };
}

function jsonCell(value) {
  if (value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
