// The page: it lets a person in, and joins the list, the open session and the composer.

import { base, takeToken } from "./access.js";
import { Api } from "./api.js";
import { Chat } from "./chat.js";
import { byId } from "./dom.js";
import { Sessions } from "./sessions.js";
import { text, translate } from "./text.js";

const MAX_MESSAGE_CHARS = 32_000;
const ANNOUNCED_CHARS = 500;
const MAX_COMPOSER_PX = 200;

document.documentElement.lang = text.lang;
translate(document);
for (const template of document.querySelectorAll("template")) translate(template.content);

const api = new Api(base, takeToken("viva-token"));
const sessions = new Sessions(api, {
  onopen: (id) => openSession(id),
  ondelete: askToDelete,
});
const chat = new Chat(api, {
  onopen: showSession,
  onstate: showState,
  onaccepted: refreshSessions,
  onend: ended,
  onrefused: refused,
});
const side = byId("side");
const composer = byId("composer");
const field = byId("message");
const phone = matchMedia("(max-width: 48rem)");

// The composer

field.placeholder = text.placeholder;
field.addEventListener("input", fitField);
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
  field.value = "";
  fitField();
  send(message);
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
  await attempt(() => chat.open(id), text.gone);
  focusField();
}

function showSession() {
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

function ended(reply) {
  if (reply.sessionId === chat.sessionId) {
    const words = reply.text || reply.error?.error || "";
    announce(text.replied(words.slice(0, ANNOUNCED_CHARS)));
  }
  refreshSessions();
}

async function refused(reply, error) {
  if (error.status === 401) {
    showAccess();
    return;
  }
  if (!reply.messageId && !field.value) {
    field.value = reply.question.mensagem;
    fitField();
  }
  if (reply.sessionId !== chat.sessionId) return;
  const isGone = error.status === 404;
  // Shows what the server has: without the message, and with a live reply of others.
  await attempt(() => chat.open(isGone ? null : chat.sessionId));
  await refreshSessions();
  notify(
    { 404: text.gone, 409: text.busy }[error.status] ??
      { damaged: text.damaged, given_up: "" }[error.code] ??
      text.refused,
  );
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
    else notify(words);
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
  await chat.sendPending();
  await chat.open();
}

start();
