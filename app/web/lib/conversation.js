/**
 * A conversation is a tree: an edited message or another answer is a sibling of the first, and `chosen` says which branch
 * is shown. Nothing that was said is lost by going on differently.
 *
 * @typedef {Object} Message
 * @property {string} id
 * @property {string|null} parent the message before it; null for a first one
 * @property {"user"|"assistant"} role
 * @property {string} content
 * @property {string} created ISO time
 * @property {string} [model] that answered
 * @property {"stop"|"length"|"stopped"|"failed"|null} [finish] of an answer: why it ended; null while it is written
 * @property {number} [tokens] of the answer
 * @property {number} [promptTokens] that the model read before it
 * @property {number} [speed] tokens a second, from the request to the last token
 * @property {number} [wait] seconds until the first token
 * @property {string} [from] id of the first message that the model read, where older ones were left out
 * @property {{message: string, code: string|null, param: string|null, prompt?: number, context?: number}|null} [error]
 *
 * @typedef {Object} Conversation
 * @property {string} id
 * @property {string} title empty: its first words
 * @property {string} system the system prompt; may be empty
 * @property {boolean} trim whether the oldest messages are left out when all of them don't fit
 * @property {string} created
 * @property {string} updated
 * @property {Object<string, Message>} messages
 * @property {Object<string, string>} chosen message id, or "" for the beginning -> id of the shown message behind it
 */

const TITLE_LENGTH = 60;

const now = () => new Date().toISOString();

/** An id that nobody else has. (crypto.randomUUID needs HTTPS, which a server at home may not have.) */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @returns {Conversation} */
export function newConversation() {
  return { id: newId(), title: "", system: "", trim: false, created: now(), updated: now(), messages: {}, chosen: {} };
}

/**
 * Put a message behind `parent` (null: at the beginning), beside those that are there, and show it.
 * @param {Conversation} conversation
 * @param {string|null} parent
 * @param {"user"|"assistant"} role
 * @param {string} content
 * @returns {Message}
 */
export function addMessage(conversation, parent, role, content) {
  const message = { id: newId(), parent, role, content, created: now() };
  conversation.messages[message.id] = message;
  conversation.chosen[parent ?? ""] = message.id;
  return message;
}

/**
 * The shown messages, first to last.
 * @param {Conversation} conversation
 * @returns {Message[]}
 */
export function shownMessages(conversation) {
  const path = [];
  for (let id = conversation.chosen[""]; id; id = conversation.chosen[id]) path.push(conversation.messages[id]);
  return path;
}

/**
 * The messages up to and with `message`, first to last.
 * @param {Conversation} conversation
 * @param {Message} message
 * @returns {Message[]}
 */
export function messagesUpTo(conversation, message) {
  const path = [];
  for (let at = message; at; at = conversation.messages[at.parent]) path.unshift(at);
  return path;
}

/**
 * The versions of each message: by what they stand behind, oldest first.
 * @param {Conversation} conversation
 * @returns {Map<string|null, Message[]>}
 */
export function groupVersions(conversation) {
  const groups = new Map();
  for (const message of Object.values(conversation.messages)) {
    const group = groups.get(message.parent);
    if (group) group.push(message);
    else groups.set(message.parent, [message]);
  }
  return groups;
}

/**
 * Show this version of a message.
 * @param {Conversation} conversation
 * @param {Message} message
 */
export function choose(conversation, message) {
  conversation.chosen[message.parent ?? ""] = message.id;
}

/**
 * Take in what another window has added since: messages that are not here, and those that have gone on there. Objects stay
 * the same: one of them may be being written.
 * @param {Conversation} conversation
 * @param {Conversation} other a later or earlier state of the same
 * @param {Message} [writing] the answer that is being written here: that it has no end yet is no lack
 */
export function takeIn(conversation, other, writing) {
  for (const [id, theirs] of Object.entries(other.messages)) {
    const mine = conversation.messages[id];
    if (!mine) conversation.messages[id] = theirs;
    else if (theirs.content.length > mine.content.length) Object.assign(mine, theirs);
    else if (mine !== writing && mine.finish === null && theirs.finish) Object.assign(mine, theirs);
  }
  conversation.chosen = { ...other.chosen, ...conversation.chosen };
}

/**
 * What the list calls it.
 * @param {Conversation} conversation
 */
export function titleOf(conversation) {
  if (conversation.title) return conversation.title;
  const words = (shownMessages(conversation)[0]?.content ?? "").trim().replace(/\s+/g, " ");
  if (words.length <= TITLE_LENGTH) return words || "New conversation";
  return `${words.slice(0, TITLE_LENGTH).replace(/\s\S*$/, "")}…`;
}

/**
 * The shown branch for reading elsewhere.
 * @param {Conversation} conversation
 */
export function toMarkdown(conversation) {
  const parts = [`# ${titleOf(conversation)}`];
  if (conversation.system) parts.push(`**System prompt**\n\n${conversation.system}`);
  for (const message of shownMessages(conversation)) {
    const name = message.role === "user" ? "You" : (message.model ?? "Model");
    parts.push(`## ${name}`, message.content.trim() || "*(nothing)*");
  }
  return `${parts.join("\n\n")}\n`;
}

/**
 * What is wrong with a value that should be a conversation, in words; null when nothing is.
 * @param {any} value
 * @returns {string|null}
 */
export function conversationProblem(value) {
  if (!isObject(value)) return "is not a conversation";
  for (const name of ["id", "title", "system", "created", "updated"]) {
    if (typeof value[name] !== "string") return `${name} is not a text`;
  }
  if (Number.isNaN(Date.parse(value.created)) || Number.isNaN(Date.parse(value.updated))) return "created or updated is not a time";
  if (!isObject(value.messages) || !isObject(value.chosen)) return "messages or chosen is missing";
  const rooted = new Set(); // ids of which the way to the beginning is known to be whole
  for (const [id, message] of Object.entries(value.messages)) {
    const problem = messageProblem(id, message) ?? wayProblem(id, value.messages, rooted);
    if (problem !== null) return problem;
  }
  for (const [id, next] of Object.entries(value.chosen)) {
    if (!Object.hasOwn(value.messages, next) || (value.messages[next].parent ?? "") !== id) return `chosen[${id}] is no message behind it`;
  }
  return null;
}

function messageProblem(id, message) {
  if (!isObject(message) || message.id !== id) return `message ${id} is broken`;
  if (message.role !== "user" && message.role !== "assistant") return `message ${id} has no role that is known`;
  if (typeof message.content !== "string") return `message ${id} has no text`;
  return null;
}

function wayProblem(id, all, rooted) {
  const way = new Set();
  for (let at = id; at !== null && !rooted.has(at); at = all[at].parent) {
    if (typeof at !== "string" || !Object.hasOwn(all, at)) return `message ${id} stands behind one that is not there`;
    if (way.has(at)) return `message ${id} stands behind itself`;
    way.add(at);
  }
  way.forEach((at) => rooted.add(at));
  return null;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
