/**
 * Many texts through a server, a batch at a time: as large as takes about a second, so that it shows progress and can be
 * paused; smaller around what is refused, until the text at fault is found. Nothing that was answered is asked again.
 */

/**
 * @typedef {{label: string, scores: [string, number][], truncated: boolean}} Answer scores: the likeliest first
 * @typedef {{error: string}} Failure
 * @typedef {"ready"|"running"|"waiting"|"pausing"|"paused"|"cancelled"|"done"} State waiting: before
 *   another try; cancelled: paused, but what was on its way was dropped
 */

const FIRST_SIZE = 8;
const MOST_TEXTS = 256;
const MOST_CHARACTERS = 100_000; // of a batch; a single text may have more
const QUICK = 0.5; // seconds: a batch that took less is followed by a larger one,
const SLOW = 2; // more: by a smaller one
const TRIES = 8; // of a server that is busy or away, before a person is asked
const TRIES_OF_ONE = 3; // of a single text on which the server fails
const LONGEST_WAIT = 30; // seconds

/** One job. Its owner reads `state`, `message`, `results`, and is told by `onChange` when they are others. */
export class BulkRun {
  /** @type {State} */ state = "ready";
  /** Why it waits or is paused, in words; null where there is nothing to say. */
  message = null;
  /** Seconds that the batches have taken, and texts answered in them: for an estimate. */
  seconds = 0;
  answered = 0;
  #size = FIRST_SIZE;
  #from = 0; // nothing before it is to be done
  #tries = 0;
  #controller = null;
  #wake = null;

  /**
   * @param {object} options
   * @param {string[]} options.texts
   * @param {(Answer|Failure|undefined)[]} options.results one place for each text; what is there is not asked for
   * @param {(texts: string[], signal: AbortSignal) => Promise<Answer[]>} options.ask
   * @param {(places: number[]) => void} [options.onResults] the places that have just got a result
   * @param {() => void} [options.onChange]
   */
  constructor({ texts, results, ask, onResults = () => {}, onChange = () => {} }) {
    Object.assign(this, { texts, results, ask, onResults, onChange });
    this.done = results.filter(Boolean).length;
    if (this.done === texts.length) this.state = "done";
  }

  /** Whether something is going on. */
  get active() {
    return this.state === "running" || this.state === "waiting" || this.state === "pausing";
  }

  /** Seconds that the rest may take; null before that can be told. */
  get secondsLeft() {
    return this.answered ? (this.seconds / this.answered) * (this.texts.length - this.done) : null;
  }

  /** Begin, or go on. */
  async start() {
    if (this.state === "pausing") this.#set("running");
    if (this.active || this.state === "done") return;
    this.#tries = 0;
    this.#set("running");
    while (this.state === "running") {
      const places = this.#next();
      if (places.length) await this.#batch(places);
      else this.#set("done");
    }
    if (this.state === "pausing") this.#set("paused", this.message);
  }

  /** Stop after the batch that is on its way. */
  pause() {
    if (this.state === "running") this.#set("pausing");
    if (this.state === "waiting") this.#stop("paused");
  }

  /** Stop now; what is on its way is dropped, and asked again by `start`. */
  cancel() {
    if (this.active) this.#stop("cancelled");
  }

  /** Forget the failures, so that `start` asks for their texts again. Returns how many there were. */
  forgetFailures(places) {
    for (const place of places) this.results[place] = undefined;
    this.done -= places.length;
    this.#from = 0;
    if (this.state === "done" && places.length) this.#set("paused");
    return places.length;
  }

  #stop(state) {
    this.#set(state);
    this.#controller?.abort();
    this.#wake?.();
  }

  #set(state, message = null) {
    Object.assign(this, { state, message });
    this.onChange();
  }

  #next() {
    const places = [];
    let characters = 0;
    while (this.#from < this.texts.length && this.results[this.#from]) this.#from += 1;
    for (let place = this.#from; place < this.texts.length && places.length < this.#size; place += 1) {
      if (this.results[place]) continue;
      characters += this.texts[place].length;
      if (places.length && characters > MOST_CHARACTERS) break;
      places.push(place);
    }
    return places;
  }

  async #batch(places) {
    const controller = new AbortController();
    this.#controller = controller;
    const began = performance.now();
    try {
      const answers = await this.ask(places.map((place) => this.texts[place]), controller.signal);
      if (controller.signal.aborted) return;
      const seconds = (performance.now() - began) / 1000;
      this.seconds += seconds;
      this.answered += places.length;
      this.#tries = 0;
      this.#resize(seconds, places.length);
      this.#put(places, answers);
    } catch (error) {
      if (!controller.signal.aborted) await this.#onError(error, places);
    } finally {
      if (this.#controller === controller) this.#controller = null;
    }
  }

  #resize(seconds, texts) {
    if (seconds < QUICK && texts === this.#size) this.#size = Math.min(this.#size * 2, MOST_TEXTS);
    if (seconds > SLOW) this.#size = Math.max(Math.floor(this.#size / 2), 1);
  }

  #put(places, results) {
    for (const [i, place] of places.entries()) this.results[place] = results[i];
    this.done += places.length;
    this.onResults(places);
    this.onChange();
  }

  async #onError(error, places) {
    const status = error.status ?? 0;
    const blamed = /^input\[(\d+)\]/.exec(error.param ?? "")?.[1];
    const ofTexts = status === 413 || (status === 400 && (!error.param || error.param === "input"));
    if (status === 400 && blamed !== undefined) {
      this.#put([places[blamed]], [{ error: error.message }]);
    } else if (places.length > 1 && (ofTexts || status === 500 || status === 504)) {
      this.#size = Math.floor(places.length / 2);
    } else if (ofTexts) {
      this.#put(places, [{ error: error.message }]);
    } else if ((status === 500 || status === 504) && this.#tries + 1 >= TRIES_OF_ONE) {
      this.#tries = 0;
      this.#put(places, [{ error: error.message }]);
    } else if (status === 0 || status === 429 || status >= 500) {
      await this.#wait(error);
    } else {
      this.#set("paused", error.message);
    }
  }

  async #wait(error) {
    this.#tries += 1;
    if (this.state !== "running" || this.#tries >= TRIES) {
      this.#set("paused", error.message);
      return;
    }
    const seconds = Math.min(Math.max(error.retryAfter ?? 0, 2 ** (this.#tries - 1)), LONGEST_WAIT);
    this.#set("waiting", `${error.message} Trying again in ${Math.round(seconds)} s.`);
    await new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, seconds * 1000);
    });
    this.#wake = null;
    if (this.state === "waiting") this.#set("running");
  }
}
