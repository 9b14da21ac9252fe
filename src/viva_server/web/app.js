// The page: it lets a person in, and joins the list, the open session and the composer.

import { base, personOf, takeToken } from "./access.js";
import { Api } from "./api.js";
import { Chat } from "./chat.js";
import { byId } from "./dom.js";
import { Kept } from "./kept.js";
import { Sessions } from "./sessions.js";
import { text, translate } from "./text.js";

const MAX_MESSAGE_CHARS = 32_000;
const ANNOUNCED_CHARS = 500;
const MAX_COMPOSER_PX = 200;

document.documentElement.lang = text.lang;
translate(document);
for (const template of document.querySelectorAll("template")) translate(template.content);

const token = takeToken("viva-token");
const api = new Api(base, token);
const kept = new Kept(base, personOf(token));
const sessions = new Sessions(api, {
  onopen: (id) => openSession(id),
  ondelete: askToDelete,
});
const chat = new Chat(api, kept, {
  onopen: showSession,
  onstate: showState,
  onaccepted: accepted,
  onend: ended,
  onrefused: refused,
  onlost: () => attempt(() => chat.open(chat.sessionId)),
});
const side = byId("side");
const composer = byId("composer");
const field = byId("message");
const phone = matchMedia("(max-width: 48rem)");

// The composer

field.placeholder = text.placeholder;
field.addEventListener("input", () => write(field.value));
field.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!chat.reply) submit();
});
composer.addEventListener("submit", (event) => {
  event.preventDefault();
  if (chat.reply) chat.stop();
  else submit();
});
byId("reconnect").addEventListener("click", () => chat.reconnect());
byId("suggestions").append(...text.suggestions.map(suggestion));

function suggestion(words) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = words;
  button.addEventListener("click", () => send(words));
  item.append(button);
  return item;
}

function submit() {
  const message = field.value;
  if (!message.trim()) return;
  if (Array.from(message).length > MAX_MESSAGE_CHARS) {
    notify(text.tooLong(MAX_MESSAGE_CHARS));
    return;
  }
  write("");
  send(message);
}

/** Puts a text into the field, and keeps it for the open session. */
function write(words) {
  show(words);
  kept.keepDraft(chat.sessionId, words);
}

/** Puts a text into the field. What a tab only shows, another may be writing. */
function show(words) {
  if (field.value !== words) field.value = words;
  fitField();
}

function send(message) {
  notify("");
  chat.send(message);
  showEmpty();
  announce(text.thinking);
}

function fitField() {
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, MAX_COMPOSER_PX)}px`;
}

function focusField() {
  // On a phone the keyboard would cover what has just been opened.
  if (matchMedia("(pointer: fine)").matches) field.focus();
}

// The open session

async function openSession(id) {
  notify("");
  closeSide();
  await attempt(() => chat.open(id));
  focusField();
}

let draftOf; // the session whose draft is in the field

function showSession() {
  if (draftOf !== chat.sessionId) {
    draftOf = chat.sessionId;
    show(kept.draft(draftOf));
  }
  sessions.mark(chat.sessionId);
  showTitle();
  showEmpty();
}

function showTitle() {
  const title = sessions.find(chat.sessionId)?.titulo || text.newChat;
  byId("title").textContent = title;
  document.title = `${title} · VIVA`;
}

function showEmpty() {
  byId("empty").hidden = !chat.isEmpty;
}

byId("new").addEventListener("click", async () => {
  notify("");
  closeSide();
  await attempt(async () => {
    await sessions.refresh();
    await (sessions.empty ? chat.open(sessions.empty.id) : chat.openNew());
    await refreshSessions();
    tabs?.postMessage("changed");
  });
  focusField();
});

async function refreshSessions() {
  await attempt(() => sessions.refresh());
  sessions.mark(chat.sessionId);
  showTitle();
}

// The live reply

let clock = 0;
let wasLost = false;

function showState(reply) {
  const isLost = reply?.state === "waiting";
  const button = byId("send");
  const label = reply ? text.stop : text.send;
  composer.classList.toggle("busy", Boolean(reply));
  button.setAttribute("aria-label", label);
  button.title = label;
  byId("connection").hidden = !isLost && !(wasLost && reply?.state === "connecting");
  clearInterval(clock);
  if (isLost) {
    if (!wasLost) announce(text.connectionLost);
    wasLost = true;
    showWait(reply);
    clock = setInterval(() => showWait(reply), 1000);
  } else if (reply?.state === "connecting") {
    byId("connection-text").textContent = text.connecting;
  } else if (wasLost) {
    wasLost = false;
    if (reply) announce(text.connectionBack);
  }
}

function showWait(reply) {
  const seconds = Math.max(1, Math.ceil((reply.retryAt - Date.now()) / 1000));
  const words = reply.waitsFor ? text.waitingFor : text.reconnecting;
  byId("connection-text").textContent = words(seconds);
}

function accepted(reply) {
  if (draftOf === null && chat.sessionId) {
    // The first message has made the session; what was typed meanwhile is its draft.
    kept.keepDraft(null, "");
    draftOf = chat.sessionId;
    write(field.value);
  }
  if (!chat.reply && [null, reply.sessionId].includes(chat.sessionId)) lookAgain();
  else refreshSessions();
  tabs?.postMessage("changed");
}

function ended(reply) {
  if (reply.sessionId === chat.sessionId) {
    const words = reply.text || reply.error?.error || "";
    announce(text.replied(words.slice(0, ANNOUNCED_CHARS)));
  }
  refreshSessions();
  tabs?.postMessage("changed");
}

async function refused(reply, error) {
  if (error.status === 401) {
    showAccess();
    return;
  }
  const words = reply.messageId ? "" : (reply.question?.mensagem ?? "");
  if (reply.sessionId !== chat.sessionId) {
    kept.keepDraft(reply.sessionId, joined(words, kept.draft(reply.sessionId)));
    return;
  }
  const isGone = error.status === 404;
  // Shows what the server has: without the message, and with a live reply of others.
  const isShown = await attempt(() => chat.open(isGone ? null : chat.sessionId));
  write(joined(words, field.value));
  if (!isShown) return;
  await refreshSessions();
  notify(
    { damaged: text.damaged, given_up: "", not_newest: text.moved }[error.code] ??
      { 404: text.gone, 409: text.busy }[error.status] ??
      text.refused,
  );
}

/** A message that comes back stands before what was typed since. */
const joined = (...texts) => texts.filter(Boolean).join("\n\n");

// Other tabs, and other devices

const tabs = globalThis.BroadcastChannel ? new BroadcastChannel(`viva:${base}`) : null;
tabs?.addEventListener("message", lookAgain);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") lookAgain();
});

/** Shows what was done elsewhere; what cannot be loaded now is, at the next look. */
async function lookAgain() {
  try {
    await sessions.refresh();
    await chat.refresh();
  } catch (error) {
    if (error.status === undefined) throw error;
    if (error.status === 404) await attempt(() => chat.open());
  }
  sessions.mark(chat.sessionId);
  showTitle();
}

// Deleting

const dialog = byId("confirm");
let toDelete = null;

function askToDelete(item) {
  toDelete = item;
  byId("confirm-name").textContent = item.titulo || text.newChat;
  dialog.showModal();
}

byId("confirm-no").addEventListener("click", () => dialog.close());
byId("confirm-yes").addEventListener("click", async () => {
  dialog.close();
  await attempt(async () => {
    await api.json("DELETE", `/viva/chat/sessions/${toDelete.id}`);
    sessions.remove(toDelete.id);
    kept.keepDraft(toDelete.id, "");
    tabs?.postMessage("changed");
    await sessions.refresh();
    if (toDelete.id === chat.sessionId) await chat.open();
  }, text.deleteFailed);
  sessions.focus();
});

// The side on a phone

byId("open-side").addEventListener("click", () => setSide(true));
byId("close-side").addEventListener("click", closeSide);
byId("shade").addEventListener("click", closeSide);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && side.classList.contains("open")) closeSide();
});
phone.addEventListener("change", () => setSide(false));

function closeSide() {
  if (side.classList.contains("open")) {
    setSide(false);
    byId("open-side").focus();
  }
}

function setSide(isOpen) {
  side.classList.toggle("open", isOpen);
  byId("shade").hidden = !isOpen;
  byId("main").inert = isOpen;
  byId("open-side").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) byId("close-side").focus();
}

// What is told

/** Tells a screen reader, once. */
function announce(words) {
  byId("announcer").textContent = words;
}

function notify(words) {
  byId("notice").textContent = words;
}

/** Runs what may fail; says so, and gives whether it did not. */
async function attempt(work, words = text.loadFailed) {
  try {
    await work();
    return true;
  } catch (error) {
    if (error.status === 401) showAccess();
    else if (error.status === undefined) throw error;
    else notify(error.status === 404 ? text.gone : words);
    return false;
  }
}

function showAccess() {
  document.body.classList.add("locked");
  byId("empty").hidden = true;
  byId("access").hidden = false;
}

/** The first look, repeated until the server answers. */
async function start() {
  for (let wait = 1000; !(await attempt(load)); wait = Math.min(wait * 2, 15_000)) {
    if (document.body.classList.contains("locked")) return;
    await new Promise((resolve) => {
      setTimeout(resolve, wait);
      addEventListener("online", resolve, { once: true });
    });
  }
  notify("");
  focusField();
}

async function load() {
  await sessions.refresh();
  chat.sendWaiting();
  const { session_id = null } = kept.waiting.at(-1)?.question ?? {};
  try {
    await chat.open(session_id);
  } catch (error) {
    if (!session_id || error.status !== 404) throw error;
    await chat.open();
  }
}

start();
