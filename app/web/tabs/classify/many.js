/** Many texts: choose them, work through them, keep what is done in the browser. */

import { formatNumber, h, replace } from "../../lib/dom.js";
import { deleteJob, listJobs, loadJob, saveJob, saveResults } from "../../lib/jobs.js";
import { createJob } from "./job.js";
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

const OPEN = "classify.job"; // in the window's own storage: a reload comes back to it

/**
 * @param {Object<string, any>} context {api, toast}
 * @param {ReturnType<import("./setup.js").createSetup>} setup
 */
export function createMany(context, setup) {
  const { toast } = context;
  const source = createSource({ onStart: begin });
  const kept = h("div", { class: "stack" });
  const view = h("div", { class: "stack" });
  let open = null;
  let keeps = true; // whether this browser keeps the open job

  async function begin({ name, marked, table, column, right }) {
    const asked = setup.read();
    if (asked === null) return;
    const now = Date.now();
    const body = { columns: table.columns, rows: table.rows, column, right, marked, setup: asked };
    const results = table.rows.map((row) => (row.error ? { error: row.error } : row.cells[column].trim() ? undefined : { error: "There is no text in this row." }));
    const done = results.filter(Boolean).length;
    const job = { id: crypto.randomUUID?.() ?? `${now}-${Math.random()}`, created: now, changed: now, name, total: results.length, done, body };
    keeps = true;
    const entries = [...results.entries()].filter(([, result]) => result);
    await keep(async () => {
      await saveJob(job);
      if (entries.length) await saveResults(job.id, entries, done);
    });
    enter(job, results);
    open.run.start();
  }

  function enter(job, results) {
    remember(job.id);
    open = createJob(context, {
      job,
      results,
      onResults: (entries, done) => keeps && keep(() => saveResults(job.id, entries, done)),
      onLeave: leave,
    });
    replace(view, open.element);
  }

  async function keep(write) {
    try {
      await write();
    } catch (error) {
      if (keeps) toast(`This browser can’t keep the job (${error.message}): download what is done before you close the window.`, "error");
      keeps = false;
    }
  }

  function leave() {
    open?.run.cancel();
    open = null;
    remember(null);
    source.reset();
    replace(view, source.element, kept);
    drawKept();
  }

  async function drawKept() {
    let jobs = [];
    try {
      jobs = await listJobs();
    } catch {
      // Nothing can have been kept where nothing can be read; `keep` tells whoever begins a job.
    }
    const rows = jobs.map((job) => h("li", { class: "row spread" }, h("span", { class: "grow" }, job.name, " ", h("span", { class: "help" }, describe(job))), actions(job)));
    replace(kept, rows.length > 0 && [h("h3", null, "Kept in this browser"), h("ul", { class: "kept" }, rows)]);
  }

  function actions(job) {
    const drop = async () => {
      if (!confirm(`Delete “${job.name}” with its ${formatNumber(job.done)} results from this browser?`)) return;
      await deleteJob(job.id).catch((error) => toast(`It can’t be deleted: ${error.message}`, "error"));
      drawKept();
    };
    return [
      h("button", { class: "button small", type: "button", "aria-label": `Open ${job.name}`, onclick: () => resume(job.id) }, "Open"),
      h("button", { class: "button small quiet", type: "button", "aria-label": `Delete ${job.name}`, onclick: drop }, "Delete"),
    ];
  }

  /** Returns whether it is there. */
  async function resume(id) {
    let found = null;
    try {
      found = await loadJob(id);
    } catch (error) {
      toast(`The job can’t be read: ${error.message}`, "error");
    }
    if (found === null) return false;
    const results = Array(found.job.total).fill(undefined);
    for (const [place, result] of found.entries) results[place] = result ?? undefined;
    keeps = true;
    enter(found.job, results);
    return true;
  }

  async function restore() {
    const id = recall();
    if (id === null || !(await resume(id))) leave();
  }

  addEventListener("beforeunload", (event) => {
    if (!keeps && open?.run.done) event.preventDefault(); // only what can't be kept is worth a question
  });
  restore();
  return { element: view };
}

function describe({ done, total, changed }) {
  const when = new Date(changed).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  return `${formatNumber(done)} of ${formatNumber(total)} rows, ${when}`;
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
