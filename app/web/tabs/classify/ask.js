/** What the classify tab asks of the server, and how it reads the answer. */

/**
 * What is asked about every text.
 * @typedef {object} Setup
 * @property {string} [model] left out: the server's own choice
 * @property {string[]} [labels] left out with a trained classifier, which has its own
 * @property {{text: string, label: string}[]} [examples]
 * @property {string} [template]
 */

/**
 * Labels for texts, in their order.
 * @param {ReturnType<import("../../lib/api.js").createApi>} api
 * @param {Setup} setup
 * @param {string[]} texts none blank
 * @param {AbortSignal} signal
 * @returns {Promise<import("../../lib/bulk.js").Answer[]>}
 * @throws {import("../../lib/api.js").ApiError}
 */
export async function askLabels(api, setup, texts, signal) {
  const answer = await api.post("classify", { ...setup, input: texts }, { signal });
  return answer.data.map((each) => ({
    label: each.label,
    // An object's members don't keep their order where their names are numbers.
    scores: Object.entries(each.scores).sort((a, b) => b[1] - a[1]),
    truncated: each.truncated,
  }));
}

/**
 * A set-up in a few words: "3 labels, 2 examples, asked of sea-base".
 * @param {Setup} setup
 * @returns {string}
 */
export function describeSetup({ model, labels, examples }) {
  const parts = [];
  if (labels) parts.push(`labels ${labels.join(", ")}`);
  if (examples?.length) parts.push(`${examples.length} example${examples.length === 1 ? "" : "s"}`);
  parts.push(labels ? `asked of ${model ?? "the server’s model"}` : `classifier ${model ?? "of the server"}`);
  return parts.join(" · ");
}
