/**
 * Delimited text by RFC 4180: cells in quotes may hold delimiters, quotes (doubled) and line breaks.
 *
 * More than the RFC: any one-character delimiter, lines that end in CRLF, LF or CR, and a quote inside a cell that
 * does not begin with one is only a character.
 */

/** A text that can't be read; `line` is where, from 1. */
export class CsvError extends Error {
  constructor(message, line) {
    super(`Line ${line}: ${message}`);
    this.name = "CsvError";
    this.line = line;
  }
}

const BREAKS = /\r\n|\r|\n/g;

/**
 * All records of a text. Lines with nothing on them are no records.
 * @param {string} text
 * @param {string} [delimiter] one character
 * @param {{quotes?: boolean, limit?: number}} [options] quotes false: a quote is a character like any other;
 *   limit: read so many records only
 * @returns {{line: number, cells: string[]}[]} with the line that each begins on
 * @throws {CsvError} for a quote that is never closed, or that something stands behind
 */
export function parseDelimited(text, delimiter = ",", { quotes = true, limit = Infinity } = {}) {
  const records = [];
  let at = text.charCodeAt(0) === 0xfeff ? 1 : 0; // a byte order mark belongs to no cell
  let line = 1;
  while (at < text.length && records.length < limit) {
    const record = { line, cells: [] };
    let more = true;
    let quoted = false;
    while (more) {
      const cell = quotes && text[at] === '"' ? quotedCell(text, at, line, delimiter) : plainCell(text, at, delimiter);
      quoted ||= cell.quoted;
      record.cells.push(cell.value);
      line += cell.breaks;
      at = cell.end;
      more = text[at] === delimiter;
      if (more) at += 1;
    }
    if (at < text.length) {
      at += text[at] === "\r" && text[at + 1] === "\n" ? 2 : 1;
      line += 1;
    }
    if (quoted || record.cells.length > 1 || record.cells[0] !== "") records.push(record);
  }
  return records;
}

function plainCell(text, start, delimiter) {
  let end = start;
  while (end < text.length && text[end] !== delimiter && text[end] !== "\n" && text[end] !== "\r") end += 1;
  return { value: text.slice(start, end), end, breaks: 0, quoted: false };
}

function quotedCell(text, start, line, delimiter) {
  let from = start + 1;
  let value = "";
  for (;;) {
    const close = text.indexOf('"', from);
    if (close < 0) {
      throw new CsvError("the quote that begins a cell here is never closed; close it, or double it if it is meant", line);
    }
    value += text.slice(from, close);
    if (text[close + 1] === '"') {
      value += '"';
      from = close + 2;
      continue;
    }
    const end = close + 1;
    const breaks = (value.match(BREAKS) ?? []).length;
    if (end < text.length && text[end] !== delimiter && text[end] !== "\n" && text[end] !== "\r") {
      throw new CsvError("something stands behind a cell's closing quote; double the quotes inside of a cell", line + breaks);
    }
    return { value, end, breaks, quoted: true };
  }
}

const EVEN = 0.8; // the share of the first records that must have the same number of cells

/**
 * The delimiter that a text is written with: the one that gives (nearly) all of its first records the same number of
 * cells, more than one; the comma where none does.
 * @param {string} text
 * @returns {{delimiter: string, columns: number}} columns: 1 where nothing parts the cells
 */
export function guessDelimiter(text) {
  let best = { delimiter: ",", columns: 1 };
  for (const delimiter of ["\t", ",", ";", "|"]) {
    let records;
    try {
      records = parseDelimited(text, delimiter, { limit: 30 });
    } catch (error) {
      if (!(error instanceof CsvError)) throw error;
      continue;
    }
    const columns = records[0]?.cells.length ?? 1;
    const alike = records.filter((record) => record.cells.length === columns).length;
    if (columns > best.columns && alike >= EVEN * records.length) best = { delimiter, columns };
  }
  return best;
}

/**
 * Records as CSV: CRLF line ends, quotes only where they are needed.
 * @param {Iterable<(string|number|boolean|null|undefined)[]>} records
 * @returns {string}
 */
export function toCsv(records) {
  let text = "";
  for (const record of records) text += `${line(record)}\r\n`;
  return text;
}

function line(cells) {
  if (cells.length === 1 && cell(cells[0]) === "") return '""'; // an empty line would be no record
  return cells.map(cell).join(",");
}

function cell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]|^\s|\s$|^\ufeff/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
