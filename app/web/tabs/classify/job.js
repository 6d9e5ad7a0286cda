/** A job under way: progress, pause, what has come of it so far, and the file. */

import { BulkRun } from "../../lib/bulk.js";
import { download, formatNumber, h, replace, setEnabled } from "../../lib/dom.js";
import { formatCount, formatLong, formatShare } from "../../lib/units.js";
import { askLabels, describeSetup } from "./ask.js";
import { countResults, resultsAsCsv } from "./results.js";
import { createResultTable } from "./table.js";

const DRAW_EVERY = 200; // milliseconds

/**
 * @param {Object<string, any>} context {api}
 * @param {object} options
 * @param {import("../../lib/jobs.js").Job & {body: import("./many.js").JobBody}} options.job
 * @param {(object|undefined)[]} options.results
 * @param {(entries: [number, object|null][], done: number) => void} options.onResults keeps them
 * @param {() => void} options.onLeave asked for another job
 */
export function createJob({ api }, { job, results, onResults, onLeave }) {
  const { body } = job;
  const run = new BulkRun({
    texts: body.rows.map((row) => row.cells[body.column]),
    results,
    ask: (texts, signal) => askLabels(api, body.setup, texts, signal),
    onResults: (places) => onResults(places.map((place) => [place, results[place]]), run.done),
    onChange: () => schedule(),
  });
  const view = new JobView(job, results, {
    go: () => run.start(),
    pause: () => run.pause(),
    cancel: () => run.cancel(),
    retry() {
      const places = failuresToRetry(body, results);
      run.forgetFailures(places);
      onResults(places.map((place) => [place, null]), run.done);
      run.start();
    },
    save: () => download(`${job.name.replace(/\.\w{1,6}$/, "")}.labelled.csv`, resultsAsCsv(body, results), "text/csv;charset=utf-8"),
    leave: onLeave,
  });
  let timer = null;
  let drawn = 0;

  // A fast server answers many batches a second; whoever reads along sees no more of it drawn so often.
  function schedule() {
    if (timer !== null) return;
    timer = setTimeout(draw, Math.max(0, drawn + DRAW_EVERY - performance.now()));
  }

  function draw() {
    timer = null;
    drawn = performance.now();
    view.update(run);
  }

  draw();
  return { element: view.element, run, focus: () => view.focus() };
}

/** Failures that another try may mend: not those of rows that have no text. */
function failuresToRetry(body, results) {
  return [...results.keys()].filter((place) => results[place]?.error && !body.rows[place].error && body.rows[place].cells[body.column].trim());
}

/** What is seen of a job. */
class JobView {
  #bar = h("progress", { class: "progress", value: 0, "aria-label": "Rows done" });
  #line = h("p", { class: "muted" });
  #state = h("p", { role: "status" });
  #message = h("p", { class: "error-box", role: "alert", hidden: true });
  #agreement = h("p");
  #summary = h("ol", { class: "bars counts", "aria-label": "Labels by number of rows" });

  /**
   * @param {object} job
   * @param {(object|undefined)[]} results
   * @param {Object<string, () => void>} actions go, pause, cancel, retry, save, leave
   */
  constructor(job, results, actions) {
    const { body } = job;
    const button = (text, name, kind = "") => h("button", { class: `button ${kind}`, type: "button", onclick: actions[name] }, text);
    this.title = h("h3", { tabindex: -1 }, job.name);
    this.body = body;
    this.results = results;
    this.#bar.max = Math.max(1, body.rows.length);
    this.buttons = {
      go: button("Continue", "go", "primary"),
      pause: button("Pause", "pause"),
      cancel: button("Cancel", "cancel"),
      retry: button("Ask again for failed rows", "retry"),
      save: button("Download CSV", "save"),
    };
    this.table = createResultTable(body, results);
    this.element = h(
      "div",
      { class: "stack" },
      h("div", { class: "row spread" }, this.title, button("Another job", "leave", "small")),
      h("p", { class: "help" }, `${formatCount(body.rows.length, "row")} · ${describeSetup(body.setup)}`),
      this.#bar,
      h("div", { class: "row spread" }, this.#state, this.#line),
      this.#message,
      h("div", { class: "row" }, Object.values(this.buttons)),
      h("p", { class: "help" }, "In the file a ' stands before any text that a spreadsheet would take for a formula."),
      this.#agreement,
      this.#summary,
      this.table.element,
    );
  }

  /** Focus its beginning. */
  focus() {
    this.title.focus();
  }

  /** Show how the run is. */
  update(run) {
    const counts = countResults(this.body, this.results);
    this.#bar.value = run.done;
    say(this.#state, describeState(run, counts));
    say(this.#message, run.message ?? "");
    say(this.#agreement, describeAgreement(this.body, counts));
    this.#message.hidden = run.message === null;
    this.#agreement.hidden = this.#agreement.textContent === "";
    this.#line.textContent = describePace(run);
    this.#updateButtons(run);
    replace(this.#summary, counts.labels.map(([label, count]) => shareOf(label, count, run.done - counts.failed)));
    this.table.update(counts);
  }

  #updateButtons(run) {
    const { go, pause, cancel, retry, save } = this.buttons;
    const focused = Object.values(this.buttons).find((button) => button === document.activeElement);
    go.hidden = run.active || run.state === "done";
    pause.hidden = cancel.hidden = !run.active;
    setEnabled(pause, run.state !== "pausing"); // another press would do nothing
    retry.hidden = run.active || failuresToRetry(this.body, this.results).length === 0;
    save.disabled = run.done === 0;
    if (focused?.hidden) [pause, go, save].find((button) => !button.hidden)?.focus(); // what took its place
  }
}

/** The same text again is not read out again. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const WORDS = { ready: "Not begun", running: "Working…", waiting: "Waiting for the server…", pausing: "Pausing after this batch…", paused: "Paused", cancelled: "Cancelled. What is done is kept." };

function describeState(run, { failed, truncated }) {
  if (run.state === "ready" && run.done) return WORDS.paused; // before the page was loaded
  if (run.state !== "done") return WORDS[run.state];
  const parts = [`Done: ${formatCount(run.texts.length, "row")}`];
  if (failed) parts.push(`${formatNumber(failed)} with an error`);
  if (truncated) parts.push(`${formatNumber(truncated)} cut off at the end, being longer than the model can read`);
  return `${parts.join(", ")}.`;
}

function describeAgreement({ columns, right: column }, { right, wrong }) {
  if (!right && !wrong) return "";
  const share = formatShare(right / (right + wrong));
  return `As in the column “${columns[column]}”: ${formatNumber(right)} of ${formatCount(right + wrong, "row")} (${share}).`;
}

function describePace(run) {
  const parts = [`${formatNumber(run.done)} of ${formatNumber(run.texts.length)}`];
  if (run.answered) parts.push(`${formatNumber(run.answered / run.seconds, run.answered < 10 * run.seconds ? 1 : 0)} rows/s`);
  if (run.active && run.secondsLeft !== null) parts.push(`about ${formatLong(run.secondsLeft)} left`);
  return parts.join(" · ");
}

function shareOf(label, count, all) {
  const share = all ? count / all : 0;
  return h(
    "li",
    { class: "bar" },
    h("span", { class: "bar-label" }, label),
    h("span", { class: "bar-track", "aria-hidden": "true" }, h("span", { class: "bar-fill", style: { inlineSize: `${100 * share}%` } })),
    h("span", { class: "bar-value" }, `${formatNumber(count)} (${formatShare(share)})`),
  );
}
