// The open session: loading it, sending, following its live reply.

import { ApiError } from "./api.js";
import { Messages } from "./messages.js";
import { newKey, Reply } from "./stream.js";

const PAGE_SIZE = 60;

/**
 * `onopen` is called after another session is shown; `onstate` when its live reply
 * changes its state, with null when it has none. `onaccepted`, `onend` and `onrefused`
 * get a reply of any session, the last one also why.
 */
export class Chat {
  sessionId = null;
  reply = null; // the live one of the open session

  #api;
  #on;
  #pendingName;
  #messages;
  #replies = new Set(); // all that are followed: leaving one would end it
  #opening = 0;
  #firstSeq = 0;
  #question = ""; // the last one
  #last = null; // the last reply or message of the assistant

  constructor(api, on) {
    this.#api = api;
    this.#on = on;
    this.#pendingName = `viva-pending:${api.base}`;
    this.#messages = new Messages({
      onolder: () => this.#loadOlder(),
      onretry: () => this.#retry(),
    });
  }

  /** Opens a session, the newest without an id; throws ApiError. */
  async open(sessionId = null) {
    const opening = (this.#opening += 1);
    const snapshot = await this.#load(sessionId);
    if (opening === this.#opening) this.#show(snapshot);
  }

  /** Opens a new session. */
  async openNew() {
    const opening = (this.#opening += 1);
    const snapshot = await this.#api.json("POST", "/viva/chat/session/new", { body: {} });
    if (opening === this.#opening) this.#show(snapshot);
  }

  /** Sends a message that a reload kept from being taken; returns when it is. */
  async sendPending() {
    const pending = JSON.parse(sessionStorage.getItem(this.#pendingName));
    if (!pending) return;
    const reply = new Reply(this.#api, pending);
    await new Promise((resolve) => this.#follow(reply, resolve).then(resolve));
  }

  send(message, isRetry = false) {
    const question = { mensagem: message };
    if (this.sessionId) question.session_id = this.sessionId;
    const pending = { question, key: newKey() };
    sessionStorage.setItem(this.#pendingName, JSON.stringify(pending));
    this.#start(new Reply(this.#api, pending), isRetry);
  }

  stop() {
    this.reply?.stop();
  }

  reconnect() {
    this.reply?.reconnect();
  }

  get isEmpty() {
    return !this.#question && !this.reply;
  }

  #load(sessionId, before = 0) {
    const query = new URLSearchParams({ limit: PAGE_SIZE });
    if (sessionId) query.set("session_id", sessionId);
    if (before) query.set("before", before);
    return this.#api.json("GET", `/viva/chat/snapshot?${query}`);
  }

  #show({ session_id, messages, has_more, active_reply }) {
    this.sessionId = session_id;
    if (this.reply) this.reply.onchange = () => {};
    this.reply = null;
    this.#last = null;
    this.#question = "";
    this.#firstSeq = messages[0]?.seq ?? 0;
    this.#messages.clear();
    for (const message of messages) this.#add(message);
    this.#messages.hasOlder(has_more);
    this.#on.onopen(this);
    this.#followLive(messages, active_reply);
  }

  #add(message) {
    if (message.tipo === "usuario") this.#question = message.conteudo;
    else this.#last = { status: message.status };
    return this.#messages.add(message);
  }

  #followLive(messages, active) {
    const known = [...this.#replies].find((reply) => reply.sessionId === this.sessionId);
    if (known) {
      this.#attach(known);
    } else if (active) {
      const { conteudo = "" } = messages.find(({ id }) => id === active.message_id) ?? {};
      const reply = new Reply(this.#api, { messageId: active.message_id, text: conteudo });
      reply.sessionId = this.sessionId;
      this.#attach(reply);
      this.#follow(reply);
    } else {
      this.#on.onstate(null);
    }
  }

  #start(reply, isRetry = false) {
    this.#attach(reply, isRetry);
    this.#messages.toEnd();
    this.#follow(reply);
  }

  /** Shows a reply in the open session, with its question if it is not there yet. */
  #attach(reply, isRetry = false) {
    const now = new Date().toISOString();
    const isShown = this.#messages.has(reply.messageId);
    let question = null;
    if (!isShown && !isRetry && reply.question) {
      const content = reply.question.mensagem;
      question = this.#add({ tipo: "usuario", conteudo: content, created_at: now });
    }
    const element = isShown
      ? undefined
      : this.#messages.add({ tipo: "ia", conteudo: "", status: "streaming", created_at: now });
    const draw = this.#messages.follow(reply, element);
    this.reply = reply;
    this.#last = reply;
    reply.onchange = () => {
      if (reply.messageId && !this.#messages.has(reply.messageId)) {
        this.#messages.name(element, reply.messageId);
        if (question) this.#messages.name(question, reply.userMessageId);
        this.sessionId ??= reply.sessionId;
      }
      if (reply.state === "ended" && this.reply === reply) this.reply = null;
      draw();
      this.#on.onstate(this.reply);
    };
    this.#on.onstate(reply);
  }

  async #follow(reply, onaccepted = () => {}) {
    this.#replies.add(reply);
    reply.onaccepted = () => {
      this.#forget(reply);
      this.#on.onaccepted(reply);
      onaccepted();
    };
    try {
      await reply.run();
      this.#on.onend(reply);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#forget(reply);
      this.#on.onrefused(reply, error);
    } finally {
      this.#replies.delete(reply);
    }
  }

  #forget({ key }) {
    const pending = JSON.parse(sessionStorage.getItem(this.#pendingName));
    if (key && pending?.key === key) sessionStorage.removeItem(this.#pendingName);
  }

  #retry() {
    // The server knows the same text after a failed reply as that reply's question.
    if (!this.reply) this.send(this.#question, this.#last?.status === "failed");
  }

  async #loadOlder() {
    const { sessionId } = this;
    const snapshot = await this.#load(sessionId, this.#firstSeq).catch(() => null);
    if (!snapshot || sessionId !== this.sessionId) return;
    this.#firstSeq = snapshot.messages[0]?.seq ?? this.#firstSeq;
    this.#messages.addOlder(snapshot.messages);
    this.#messages.hasOlder(snapshot.has_more);
  }
}
