/** Durations, sizes and shares as people read them. */

import { formatNumber } from "./dom.js";

/**
 * A short time: "850 µs", "12.4 ms", "3.1 s", "2 min 5 s".
 * @param {number|null} seconds
 * @returns {string} a dash where nothing is known
 */
export function formatSeconds(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${formatNumber(seconds * 1e6)} µs`;
  if (seconds < 1) return `${formatNumber(seconds * 1e3, seconds < 0.1 ? 1 : 0)} ms`;
  return seconds < 60 ? `${formatNumber(seconds, 1)} s` : formatLong(seconds);
}

const STEPS = [
  ["d", 86400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
];

/**
 * A long time by its two largest units: "3 d 4 h", "2 min 5 s".
 * @param {number} seconds
 * @returns {string}
 */
export function formatLong(seconds) {
  let rest = Math.max(0, Math.round(seconds));
  const first = STEPS.findIndex(([, size]) => rest >= size);
  if (first < 0) return "0 s";
  const parts = [];
  for (const [unit, size] of STEPS.slice(first, first + 2)) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count) parts.push(`${count} ${unit}`);
  }
  return parts.join(" ");
}

/**
 * A size in memory: "812 MiB", "3.2 GiB".
 * @param {number|null} bytes
 * @returns {string} a dash where nothing is known
 */
export function formatBytes(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const mebibytes = bytes / 2 ** 20;
  return mebibytes < 1024 ? `${formatNumber(mebibytes, mebibytes < 10 ? 1 : 0)} MiB` : `${formatNumber(mebibytes / 1024, 1)} GiB`;
}

/**
 * A probability: "93.1 %". What is not quite nothing or everything never looks as if it were.
 * @param {number} share 0 to 1
 * @returns {string}
 */
export function formatShare(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  if (share < 1 && share > 0.999) return "> 99.9 %";
  return `${(share * 100).toFixed(1)} %`; // always the same digits: they stand below each other
}

/**
 * "1 row", "3,000 rows".
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 * @returns {string}
 */
export function formatCount(count, one, many = `${one}s`) {
  return `${formatNumber(count)} ${count === 1 ? one : many}`;
}
