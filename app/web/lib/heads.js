/** What a head of attention is in the habit of doing. Pure: numbers in, numbers out. */

/** @typedef {number[][]} Matrix [query][key]: what share each position takes from each; rows sum to 1 */

/**
 * The mean of several heads.
 * @param {Matrix[]} heads
 * @returns {Matrix}
 */
export function meanOf(heads) {
  return heads[0].map((row, query) => row.map((_, key) => heads.reduce((sum, head) => sum + head[query][key], 0) / heads.length));
}

/**
 * The keys that a row gives most to, best first.
 * @param {number[]} row
 * @param {number} most how many
 * @returns {{key: number, weight: number}[]} none that would be shown as 0
 */
export function strongest(row, most) {
  return row
    .map((weight, key) => ({ key, weight }))
    .filter(({ weight }) => weight >= 0.0005)
    .sort((one, other) => other.weight - one.weight)
    .slice(0, most);
}

/**
 * What a head gives, on average, to some places that are the same for every position. The first positions, for which these
 * places are one, don't count.
 * @param {Matrix} matrix
 * @param {number[]} ids the tokens; `repeat` is about those that were there before
 * @returns {{first: number, previous: number, itself: number, repeat: number|null}|null} null for a text of less than three
 *   tokens; `repeat`: to what followed the same token earlier (an induction head's habit), null where nothing is repeated
 */
export function habits(matrix, ids) {
  const queries = matrix.map((_, query) => query).slice(2);
  if (queries.length === 0) return null;
  const mean = (weights) => weights.reduce((sum, weight) => sum + weight, 0) / weights.length;
  const followers = queries
    .map((query) => ({ query, keys: queries.filter((key) => key < query && ids[key - 1] === ids[query]) }))
    .filter(({ keys }) => keys.length);
  return {
    first: mean(queries.map((query) => matrix[query][0])),
    previous: mean(queries.map((query) => matrix[query][query - 1])),
    itself: mean(queries.map((query) => matrix[query][query])),
    repeat: followers.length
      ? mean(followers.map(({ query, keys }) => keys.reduce((sum, key) => sum + matrix[query][key], 0)))
      : null,
  };
}

/**
 * How clearly a head looks at single tokens other than the first and the one that looks: from 0 to 1.
 * @param {Matrix} matrix
 */
export function sharpness(matrix) {
  const rows = matrix.slice(2).map((row, index) => Math.max(...row.slice(1, index + 2)));
  return rows.reduce((sum, weight) => sum + weight, 0) / Math.max(1, rows.length);
}
