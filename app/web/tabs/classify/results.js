/** Results of many rows: what is counted of them, and the file that holds them all. */

import { toCsv } from "../../lib/csv.js";
import { freeName } from "../../lib/tables.js";

/**
 * @param {(import("../../lib/bulk.js").Answer|import("../../lib/bulk.js").Failure|undefined)[]} results
 * @returns {{labels: [string, number][], failed: number, truncated: number, open: number}} labels: the most frequent first
 */
export function countResults(results) {
  const labels = new Map();
  const counts = { failed: 0, truncated: 0, open: 0 };
  for (const result of results) {
    if (!result) counts.open += 1;
    else if (result.error) counts.failed += 1;
    else {
      labels.set(result.label, (labels.get(result.label) ?? 0) + 1);
      counts.truncated += Number(result.truncated);
    }
  }
  return { labels: [...labels].sort((a, b) => b[1] - a[1]), ...counts };
}

/**
 * All rows as CSV: their own columns, then the label, its probability, each label's probability, whether the text was cut
 * off, and the error. Rows without a result yet have nothing in these.
 * @param {import("./many.js").JobBody} body
 * @param {(import("../../lib/bulk.js").Answer|import("../../lib/bulk.js").Failure|undefined)[]} results
 * @returns {string}
 */
export function resultsAsCsv(body, results) {
  const labels = new Set(body.setup.labels ?? []);
  for (const result of results) for (const [label] of result?.scores ?? []) labels.add(label);
  const names = [...labels];
  if (!body.setup.labels) names.sort();
  const used = new Set(body.columns);
  const added = ["label", "probability", ...names.map((name) => `p(${name})`), "cut off", "error"].map((name) => freeName(name, used));
  const records = body.rows.map((row, place) => [...row.cells, ...cellsOf(results[place], names)]);
  const mark = body.marked ? "\ufeff" : ""; // whoever wrote the file with one (Excel does) needs it to read it
  return mark + toCsv([[...body.columns, ...added], ...records]);
}

function cellsOf(result, names) {
  if (!result || result.error) return ["", "", ...names.map(() => ""), "", result?.error ?? ""];
  const scores = new Map(result.scores);
  const shares = names.map((name) => (scores.has(name) ? scores.get(name).toFixed(6) : ""));
  return [result.label, result.scores[0][1].toFixed(6), ...shares, result.truncated ? "yes" : "no", ""];
}
