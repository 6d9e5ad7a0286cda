/** Many texts: choose them, work through them, keep what is done in the browser. */

import { h, replace } from "../../lib/dom.js";
import { loadJob, saveJob, saveResults } from "../../lib/jobs.js";
import { storePrefix } from "../../lib/store.js";
import { createJob } from "./job.js";
import { createKeptList } from "./kept.js";
import { createSource } from "./source.js";

/**
 * @typedef {object} JobBody
 * @property {string[]} columns
 * @property {import("../../lib/tables.js").Row[]} rows
 * @property {number} column where the texts are
 * @property {number|null} right the column that already has the right labels, to compare with
 * @property {boolean} marked the file began with a byte order mark
 * @property {import("./ask.js").Setup} setup as it was when the job began
 */

const OPEN = `${storePrefix()}classify.job`; // in the window's own storage: a reload comes back to it
const WARNING = "This browser could not keep these results. Leave without downloading them?";

/** `element` is to be put into the page: a place to choose texts, or the job that is open. */
export class ManyTexts {
  element = h("div", { class: "stack" });
  #open = null;
  #keeps = true; // whether this browser keeps the open job
  #beginning = false;

  /**
   * @param {Object<string, any>} context {api, toast}
   * @param {ReturnType<import("./setup.js").createSetup>} setup
   */
  constructor(context, setup) {
    this.context = context;
    this.setup = setup;
    this.source = createSource({ onStart: (source) => this.#begin(source) });
    this.kept = createKeptList(context, { onOpen: (id) => this.#reopen(id), onNone: () => this.source.focus() });
    addEventListener("beforeunload", (event) => {
      if (!this.#keeps && this.#open?.run.done) event.preventDefault(); // only what can't be kept is worth a question
    });
    this.#restore();
  }

  async #begin(source) {
    const setup = this.#beginning ? null : this.setup.read(); // it may be the second one of two clicks
    if (setup === null) return;
    this.#beginning = true;
    const { job, results, entries } = createNewJob(source, setup);
    this.#keeps = true;
    await this.#keep(async () => {
      await saveJob(job);
      if (entries.length) await saveResults(job.id, entries, entries.length);
    });
    this.#beginning = false;
    this.#enter(job, results);
    this.#open.focus();
    this.#open.run.start();
  }

  #enter(job, results) {
    remember(job.id);
    this.#open = createJob(this.context, {
      job,
      results,
      onResults: (entries, done) => this.#keeps && this.#keep(() => saveResults(job.id, entries, done)),
      onLeave: () => this.#askAndLeave(),
    });
    replace(this.element, this.#open.element);
  }

  async #keep(write) {
    try {
      await write();
    } catch (error) {
      const text = `This browser can’t keep the job (${error.message}): download what is done before you close the window.`;
      if (this.#keeps) this.context.toast(text, "error");
      this.#keeps = false;
    }
  }

  #askAndLeave() {
    if (!this.#keeps && this.#open.run.done && !confirm(WARNING)) return;
    this.#leave();
    this.source.focus();
  }

  #leave() {
    this.#open?.run.cancel();
    this.#open = null;
    remember(null);
    this.source.reset();
    replace(this.element, this.source.element, this.kept.element);
    this.kept.draw();
  }

  /** Returns whether the job is there. */
  async #resume(id) {
    let found = null;
    try {
      found = await loadJob(id);
    } catch (error) {
      this.context.toast(`The job can’t be read: ${error.message}`, "error");
    }
    if (found === null) return false;
    const results = Array(found.job.total).fill(undefined);
    for (const [place, result] of found.entries) results[place] = result ?? undefined;
    this.#keeps = true;
    this.#enter(found.job, results);
    return true;
  }

  async #reopen(id) {
    if (await this.#resume(id)) this.#open.focus();
  }

  async #restore() {
    const id = recall();
    if (id === null || !(await this.#resume(id))) this.#leave();
  }
}

/** A new job, with the results that some rows have before anybody is asked, which are listed in `entries`. */
function createNewJob({ name, marked, table, column, right }, setup) {
  const now = Date.now();
  const body = { columns: table.columns, rows: table.rows, column, right, marked, setup };
  const results = table.rows.map((row) => failureOf(row, column));
  const entries = [...results.entries()].filter(([, result]) => result);
  const id = crypto.randomUUID?.() ?? `${now}-${Math.random()}`; // browsers have it over HTTPS and on this machine only
  return { job: { id, created: now, changed: now, name, total: results.length, done: entries.length, body }, results, entries };
}

/** What is wrong with a row before anybody is asked; undefined: nothing. */
function failureOf(row, column) {
  if (row.error) return { error: row.error };
  return row.cells[column].trim() ? undefined : { error: "There is no text in this row." };
}

function remember(id) {
  try {
    if (id === null) sessionStorage.removeItem(OPEN);
    else sessionStorage.setItem(OPEN, id);
  } catch {
    // The job is in the list all the same.
  }
}

function recall() {
  try {
    return sessionStorage.getItem(OPEN);
  } catch {
    return null;
  }
}
