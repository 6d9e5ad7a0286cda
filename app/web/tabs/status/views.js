/** The parts of the status tab. Each is made once, `{element, update(status)}`, and changes only its figures. */

import { formatNumber, h, replace } from "../../lib/dom.js";
import { createSparkline } from "../../lib/sparkline.js";
import { formatBytes, formatCount, formatSeconds } from "../../lib/units.js";

/** Requests that run and that wait, each against what there is room for. */
export function createLoad() {
  const running = gauge("Running", "Requests that are being answered now.");
  const waiting = gauge("Waiting", "Requests in the queue. When it is full, new ones are refused.");
  return {
    element: h("div", { class: "status-cards" }, running.element, waiting.element),
    update(status) {
      running.show(status.running, status.slots);
      waiting.show(status.waiting, status.max_queue);
    },
  };
}

function gauge(title, help) {
  const value = h("span", { class: "status-figure" }, "–");
  const of = h("span", { class: "muted" });
  const fill = h("div", { class: "status-fill" });
  const element = h(
    "section",
    { class: "card" },
    h("h3", null, title),
    h("p", null, value, " ", of),
    h("div", { class: "status-track", "aria-hidden": "true" }, fill),
    h("p", { class: "help" }, help),
  );
  return {
    element,
    show(count, most) {
      value.textContent = formatNumber(count);
      of.textContent = `of ${formatNumber(most)}`;
      fill.style.inlineSize = `${most ? Math.min(100, (100 * count) / most) : 0}%`;
    },
  };
}

/** Tokens a second, written and read, with the last minute's curves. */
export function createSpeed() {
  const generated = speed("Writing", "generated");
  const prompt = speed("Reading", "prompt");
  return {
    element: h("div", { class: "status-cards" }, generated.element, prompt.element),
    update(status) {
      generated.show(status);
      prompt.show(status);
    },
  };
}

function speed(title, kind) {
  const now = h("span", { class: "status-figure" }, "–");
  const minute = h("p", { class: "help" });
  const curve = createSparkline(
    (values) => `${title}: ${formatNumber(values.at(-1) ?? 0)} tokens in the last second; the most in a second of the last minute was ${formatNumber(Math.max(0, ...values))}.`,
  );
  const element = h(
    "section",
    { class: "card" },
    h("h3", null, title),
    h("p", null, now, " ", h("span", { class: "muted" }, "tokens/s")),
    curve.element,
    minute,
  );
  return {
    element,
    show({ tokens_per_second: rates, history }) {
      const values = history[kind];
      now.textContent = formatNumber(rates.last_10_s[kind], 1);
      const most = formatNumber(Math.max(0, ...values));
      minute.textContent = `The last minute: ${formatNumber(rates.last_60_s[kind], 1)} on average, ${most} in its highest second.`;
      curve.draw(values);
    },
  };
}

const WAITS = [
  ["time_to_first_token", "First token", "from a request’s arrival to the first token of its answer"],
  ["inter_token", "Next token", "between two tokens of an answer"],
  ["end_to_end", "Whole answer", "from a request’s arrival to its end"],
];

/** Percentiles of the waits. */
export function createLatency() {
  const caption = h("p", { class: "help" });
  const rows = WAITS.map(([name, title, help]) => {
    const cells = Array.from({ length: 4 }, () => h("td", null, "–"));
    const row = h("tr", null, h("th", { scope: "row" }, title, h("div", { class: "help" }, help)), cells);
    return { name, cells, row };
  });
  const head = ["", "50 %", "95 %", "99 %", "Count"];
  const table = h(
    "table",
    { class: "table status-latency" },
    h("thead", null, h("tr", null, head.map((text) => (text ? h("th", { scope: "col" }, text) : h("td", null))))),
    h("tbody", null, rows.map(({ row }) => row)),
  );
  return {
    element: section("Waits", h("div", { class: "scroll-x", tabindex: "0", role: "group", "aria-label": "Waits" }, table), caption),
    update({ latency }) {
      caption.textContent = `So many of the waits in the last ${formatSeconds(latency.window_seconds)} were no longer than this.`;
      for (const { name, cells } of rows) {
        const { p50, p95, p99, count } = latency[name];
        [p50, p95, p99].forEach((value, i) => (cells[i].textContent = formatSeconds(value)));
        cells[3].textContent = formatNumber(count);
      }
    },
  };
}

const PROCESSES = [
  ["engine", "Engine", "holds the model and its cache"],
  ["server", "HTTP server", "answers requests"],
  ["inspector", "Look inside", "runs only while that tab is used"],
];

/** Memory of each process, as bars of one scale. */
export function createMemory() {
  const list = h("dl", { class: "status-memory" });
  return {
    element: section("Memory", list),
    update({ memory }) {
      const known = PROCESSES.filter(([name]) => memory[name] !== null);
      const most = Math.max(1, ...known.map(([name]) => memory[name]));
      const rows = known.map(([name, title, help]) => [
        h("dt", null, title, h("div", { class: "help" }, help)),
        h(
          "dd",
          null,
          h("div", { class: "status-track", "aria-hidden": "true" }, h("div", { class: "status-fill", style: { inlineSize: `${(100 * memory[name]) / most}%` } })),
          h("span", null, formatBytes(memory[name])),
        ),
      ]);
      replace(list, rows.length ? rows : h("p", { class: "muted" }, "This system doesn’t tell."));
    },
  };
}

/** What has happened since the start. */
export function createTotals() {
  const list = h("dl", { class: "status-facts" });
  return {
    element: section("Since the start", list),
    update({ totals, engine_restarts: restarts }) {
      const share = totals.prompt_tokens ? totals.cached_tokens / totals.prompt_tokens : 0;
      facts(list, [
        ["Answered", formatCount(totals.finished, "request")],
        ["Broken off", formatCount(totals.aborted, "request")],
        ["Refused", formatCount(totals.rejected, "request")],
        ["Tokens written", formatNumber(totals.generation_tokens)],
        ["Tokens of prompts", formatNumber(totals.prompt_tokens)],
        ["Of these remembered", `${formatNumber(totals.cached_tokens)} (${formatNumber(100 * share)} %)`],
        ["Engine restarted", formatCount(restarts, "time")],
      ]);
    },
  };
}

/** The models that requests can name. */
export function createModelList() {
  const body = h("tbody");
  const head = ["Model", "What it gives", "Stands on", "Context"];
  const table = h("table", { class: "table" }, h("thead", null, h("tr", null, head.map((text) => h("th", { scope: "col" }, text)))), body);
  let shown = "";
  return {
    element: section("Loaded models", h("div", { class: "scroll-x", tabindex: "0", role: "group", "aria-label": "Loaded models" }, table)),
    update({ models }) {
      const now = JSON.stringify(models);
      if (now === shown) return; // whoever marks text in it keeps the mark
      shown = now;
      const rows = models.map((model) => [
        h("th", { scope: "row" }, model.id),
        h("td", null, model.task === "classify" ? "labels" : "text"),
        h("td", null, model.parent ?? "–"),
        h("td", null, formatCount(model.max_model_len, "token")),
      ]);
      replace(body, rows.map((cells) => h("tr", null, cells)));
    },
  };
}

const FACTS = [
  ["architecture", "Architecture"],
  ["device", "Computes on"],
  ["kernels", "With"],
  ["dtype", "Number format"],
  ["quantize", "Quantised"],
  ["threads", "Threads"],
  ["slots", "Slots"],
  ["context", "Context"],
  ["torch", "PyTorch"],
  ["python", "Python"],
  ["version", "Homegrown"],
];

/** What runs there. */
export function createEngineFacts() {
  const list = h("dl", { class: "status-facts" });
  let shown = "";
  return {
    element: section("Engine", list),
    update({ engine }) {
      const now = JSON.stringify(engine);
      if (now === shown) return;
      shown = now;
      facts(list, FACTS.filter(([name]) => engine[name] !== null).map(([name, title]) => [title, String(engine[name])]));
    },
  };
}

function facts(list, pairs) {
  if (list.children.length !== pairs.length) replace(list, pairs.map(([title]) => h("div", null, h("dt", null, title), h("dd"))));
  pairs.forEach(([title, value], i) => {
    const [term, definition] = list.children[i].children;
    if (term.textContent !== title) term.textContent = title;
    if (definition.textContent !== value) definition.textContent = value;
  });
}

function section(title, ...children) {
  return h("section", { class: "card stack" }, h("h3", null, title), children);
}
