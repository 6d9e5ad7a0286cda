/** Tokens as the page shows them: bytes put together to characters, chances, surprise. Knows neither the DOM nor the server. */

/**
 * @typedef {Object} Choice a token that could stand in a place
 * @property {number} id its place in the vocabulary
 * @property {string} token its text, U+FFFD for part of a character
 * @property {number[]} bytes
 * @property {number} logprob natural logarithm
 *
 * @typedef {Object} Token
 * @property {number} id
 * @property {number[]} bytes its true bytes, often part of a character only
 * @property {"given"|"model"|"chosen"} source who put it there: the person's text, the model, the person's choice among the model's
 * @property {boolean} [hidden] put in front by the server; no part of the text
 * @property {number|null} [logprob] natural logarithm of its chance; null: not known
 * @property {Choice[]|null} [top] the likeliest in its place, best first; null: not known
 */

/** The bounds, in bits, between the levels of surprise. */
export const SURPRISE_BOUNDS = [1, 3, 5, 8, 12];

/**
 * Surprise in bits: 0 for what was certain, 1 for a coin's side, 10 for one in a thousand.
 * @param {number} logprob natural logarithm of the chance
 */
export function surprise(logprob) {
  return Math.max(0, -logprob / Math.LN2);
}

/**
 * The level of surprise, from 0 (expected) to SURPRISE_BOUNDS.length.
 * @param {number} logprob
 */
export function surpriseLevel(logprob) {
  const bits = surprise(logprob);
  return SURPRISE_BOUNDS.filter((bound) => bits >= bound).length;
}

/**
 * Each token's own characters. A character that is spread over several tokens counts as the last one's; the others have
 * an empty text and `partial` set. What a token shows depends on those before it only.
 * @param {{bytes: number[]}[]} tokens
 * @returns {{text: string, partial: boolean}[]}
 */
export function spell(tokens) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return tokens.map(({ bytes }) => {
    const text = decoder.decode(Uint8Array.from(bytes), { stream: true });
    return { text, partial: text === "" && bytes.length > 0 };
  });
}

/**
 * The text of tokens, without those that are no part of it.
 * @param {Token[]} tokens
 */
export function textOf(tokens) {
  return decode(tokens.filter((token) => !token.hidden).flatMap((token) => token.bytes));
}

/**
 * Bytes as text, U+FFFD for what is no UTF-8.
 * @param {number[]} bytes
 */
export function decode(bytes) {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
}

const SIGNS = { " ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽" };

/**
 * A token by itself, with signs for what can't be seen: a space at its ends, line ends, parts of characters.
 * @param {{bytes: number[]}} token
 */
export function label({ bytes }) {
  const text = decode(bytes);
  if (bytes.length === 0) return "∅";
  if (text.includes("\ufffd") && !isReplacement(bytes)) return bytesLabel(bytes);
  const shown = text.replace(/^ | $/g, SIGNS[" "]).replace(/[\n\r\t\u00a0]/g, (sign) => SIGNS[sign]);
  return /^ +$/.test(text) ? SIGNS[" "].repeat(text.length) : shown;
}

/** Whether the bytes really are the character U+FFFD. */
function isReplacement(bytes) {
  return bytes.length === 3 && bytes[0] === 0xef && bytes[1] === 0xbf && bytes[2] === 0xbd;
}

function bytesLabel(bytes) {
  return `‹${bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ")}›`;
}

const NAMES = { " ": "space", "\n": "line end", "\r": "carriage return", "\t": "tab", "\u00a0": "fixed space" };

/**
 * A token as a screen reader is to say it.
 * @param {{bytes: number[]}} token
 */
export function spoken({ bytes }) {
  const text = decode(bytes);
  if (bytes.length === 0) return "nothing";
  if (text.includes("\ufffd") && !isReplacement(bytes)) return `part of a character, ${bytesLabel(bytes).slice(1, -1)}`;
  if (text.trim() !== "") return text.trim();
  const [first] = text;
  const name = NAMES[first] ?? "blank";
  return text.length === 1 ? name : `${text.length} blanks beginning with ${name}`;
}

/**
 * A probability in words' company: `63 %`, `99.7 %`, `4.1 %`, `0.03 %`, `< 0.01 %`.
 * @param {number} probability 0 to 1
 */
export function percent(probability) {
  const value = Math.min(100, probability * 100);
  if (value > 0 && value < 0.01) return "< 0.01 %";
  if (probability < 1 && value >= 99.95) return "> 99.9 %";
  return `${value.toFixed(digitsOf(value))} %`;
}

function digitsOf(value) {
  if (value === 0 || value === 100) return 0;
  if (value >= 99.5) return 1; // "100" would be too much
  if (value >= 10) return 0;
  return value >= 0.995 ? 1 : 2;
}

/**
 * What the known chances of a text come to; null when none is known.
 * @param {Token[]} tokens
 * @returns {{tokens: number, bits: number, perplexity: number, bitsPerByte: number|null}|null} `tokens`: how many have a known
 *   chance; `bits`: their mean surprise
 */
export function summarise(tokens) {
  const known = tokens.filter((token) => typeof token.logprob === "number");
  if (known.length === 0) return null;
  const total = known.reduce((sum, token) => sum + surprise(token.logprob), 0);
  const size = known.reduce((sum, token) => sum + token.bytes.length, 0);
  const bits = total / known.length;
  return { tokens: known.length, bits, perplexity: 2 ** bits, bitsPerByte: size ? total / size : null };
}
