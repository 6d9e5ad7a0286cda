/** A text as tokens, with every step that changed it: what Write works on. */

/**
 * @typedef {import("./tokens.js").Token} Token
 * @typedef {Object} Step
 * @property {Token[]} tokens never changed in place
 * @property {boolean} ended whether the model itself ended the text here
 */

const MOST_STEPS = 200;

/**
 * A text that can be changed, and each change taken back.
 */
export class Draft {
  /** @type {Step[]} */
  #steps = [{ tokens: [], ended: false }];
  #at = 0;
  #listeners = new Set();

  /** @returns {Token[]} */
  get tokens() {
    return this.#steps[this.#at].tokens;
  }

  /** Whether the model ended the text. */
  get ended() {
    return this.#steps[this.#at].ended;
  }

  get canUndo() {
    return this.#at > 0;
  }

  get canRedo() {
    return this.#at < this.#steps.length - 1;
  }

  /** Call `listener()` after every change. */
  subscribe(listener) {
    this.#listeners.add(listener);
  }

  /**
   * A new step, which `undo` takes back as a whole.
   * @param {Token[]} tokens
   */
  commit(tokens) {
    const blank = this.#at === 0 && this.tokens.length === 0; // nothing to go back to
    this.#steps = blank ? [] : this.#steps.slice(0, this.#at + 1);
    this.#steps.push({ tokens, ended: false });
    if (this.#steps.length > MOST_STEPS) this.#steps.shift();
    this.#at = this.#steps.length - 1;
    this.#tell();
  }

  /**
   * Add to the step that was committed last: what arrives of one answer is one step.
   * @param {Token[]} tokens
   */
  append(tokens) {
    this.#replace({ tokens: [...this.tokens, ...tokens] });
  }

  /** The model ended the text. */
  end() {
    this.#replace({ ended: true });
  }

  /**
   * Learn more about the same tokens (their chances): no step of its own.
   * @param {Token[]} tokens
   */
  annotate(tokens) {
    this.#replace({ tokens });
  }

  undo() {
    this.#go(this.#at - 1);
  }

  redo() {
    this.#go(this.#at + 1);
  }

  #go(at) {
    if (at < 0 || at >= this.#steps.length) return;
    this.#at = at;
    this.#tell();
  }

  #replace(change) {
    this.#steps[this.#at] = { ...this.#steps[this.#at], ...change };
    this.#tell();
  }

  #tell() {
    for (const listener of this.#listeners) listener();
  }
}
