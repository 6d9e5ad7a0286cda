/** The jobs that this browser keeps: to be opened again, or deleted. */

import { formatNumber, h, replace } from "../../lib/dom.js";
import { deleteJob, listJobs } from "../../lib/jobs.js";

/**
 * @param {Object<string, any>} context {toast}
 * @param {{onOpen: (id: string) => void, onNone: () => void}} options `onNone`: the last one was deleted, and the focus has to
 *   go somewhere
 */
export function createKeptList({ toast }, { onOpen, onNone }) {
  const element = h("div", { class: "stack" });

  async function draw() {
    let jobs = [];
    try {
      jobs = await listJobs();
    } catch {
      // Nothing can have been kept where nothing can be read; whoever begins a job is told.
    }
    replace(element, jobs.length > 0 && [h("h3", null, "Kept in this browser"), h("ul", { class: "kept" }, jobs.map(rowOf))]);
  }

  function rowOf(job) {
    const button = (text, kind, onclick) => h("button", { class: `button small ${kind}`, type: "button", "aria-label": `${text} ${job.name}`, onclick }, text);
    return h(
      "li",
      { class: "row spread" },
      h("span", { class: "grow" }, job.name, " ", h("span", { class: "help" }, describe(job))),
      button("Open", "", () => onOpen(job.id)),
      button("Delete", "quiet", () => drop(job)),
    );
  }

  async function drop(job) {
    if (!confirm(`Delete “${job.name}” with its ${formatNumber(job.done)} results from this browser?`)) return;
    try {
      await deleteJob(job.id);
    } catch (error) {
      toast(`It can’t be deleted: ${error.message}`, "error");
    }
    await draw();
    // The button that was pressed is gone.
    const next = element.querySelector("button");
    if (next) next.focus();
    else onNone();
  }

  return { element, draw };
}

function describe({ done, total, changed }) {
  const when = new Date(changed).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  return `${formatNumber(done)} of ${formatNumber(total)} rows, ${when}`;
}
