// The open session: loading it, sending, following its live reply.

import { ApiError } from "./api.js";
import { Messages } from "./messages.js";
import { newKey, Reply } from "./stream.js";

const PAGE_SIZE = 60;

/**
 * `onopen` is called after another session is shown; `onstate` when its live reply
 * changes its state, with null when it has none. `onaccepted`, `onend` and `onrefused`
 * get a reply of any session, the last one also why. `onlost`: what is shown is not what
 * the server has.
 */
export class Chat {
  sessionId = null;
  reply = null; // the live one of the open session

  #api;
  #on;
  #kept;
  #messages;
  #replies = new Set(); // all that are followed: leaving one would end it
  #opening = 0;
  #firstSeq = 0;
  #lastId = null; // the newest reply's

  constructor(api, kept, on) {
    this.#api = api;
    this.#kept = kept;
    this.#on = on;
    this.#messages = new Messages({
      onolder: () => this.#loadOlder(),
      onagain: () => this.#again(),
    });
  }

  /** Opens a session, the newest without an id; throws ApiError. */
  async open(sessionId = null) {
    const opening = (this.#opening += 1);
    const snapshot = await this.#load(sessionId);
    if (opening === this.#opening) this.#show(snapshot);
  }

  /** Shows what has changed elsewhere; throws ApiError. */
  async refresh() {
    const opening = this.#opening;
    const snapshot = await this.#load(this.sessionId);
    if (opening !== this.#opening || (this.reply && !this.reply.messageId)) return;
    const isSame = snapshot.session_id === this.sessionId;
    if (!isSame || !this.#messages.endWith(snapshot.messages.slice(-2))) this.#show(snapshot);
  }

  /** Opens a new session. */
  async openNew() {
    const opening = (this.#opening += 1);
    const snapshot = await this.#api.json("POST", "/viva/chat/session/new", { body: {} });
    if (opening === this.#opening) this.#show(snapshot);
  }

  /** Goes on sending what a reload, or an expired access, kept from being taken. */
  sendWaiting() {
    for (const waiting of this.#kept.waiting) {
      if ([...this.#replies].some(({ key }) => key === waiting.key)) continue;
      this.#follow(new Reply(this.#api, waiting));
    }
  }

  send(message) {
    const question = { mensagem: message };
    if (this.sessionId) question.session_id = this.sessionId;
    const waiting = { question, key: newKey() };
    this.#kept.wait(waiting);
    this.#start(new Reply(this.#api, waiting));
  }

  stop() {
    this.reply?.stop();
  }

  reconnect() {
    this.reply?.reconnect();
  }

  get isEmpty() {
    return this.#messages.isEmpty;
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
    this.#lastId = null;
    this.#firstSeq = messages[0]?.seq ?? 0;
    this.#messages.clear();
    for (const message of messages) this.#add(message);
    this.#messages.hasOlder(has_more);
    this.#on.onopen(this);
    this.#followLive(messages, active_reply);
  }

  #add(message) {
    if (message.tipo === "ia") this.#lastId = message.id;
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

  #start(reply) {
    this.#attach(reply);
    this.#messages.toEnd();
    this.#follow(reply);
  }

  /** Shows a reply in the open session, with its question if it is not there yet. */
  #attach(reply) {
    const now = new Date().toISOString();
    const shown = this.#messages.get(reply.messageId ?? reply.replaces);
    if (!shown) this.#lastId = null;
    let question = null;
    if (!shown && reply.question) {
      const content = reply.question.mensagem;
      question = this.#add({ tipo: "usuario", conteudo: content, created_at: now });
    }
    const element =
      shown ?? this.#messages.add({ tipo: "ia", conteudo: "", status: "waiting", created_at: now });
    const draw = this.#messages.follow(reply, element);
    this.reply = reply;
    let isNamed = shown?.dataset.messageId === reply.messageId;
    reply.onchange = () => {
      if (reply.messageId && !isNamed) {
        isNamed = true;
        this.sessionId ??= reply.sessionId;
        if (question && this.#messages.get(reply.userMessageId)) {
          // It had been stored before, and is there twice.
          this.refresh().catch(() => {});
        } else {
          this.#messages.name(element, reply.messageId);
          if (question) this.#messages.name(question, reply.userMessageId);
        }
      }
      if (reply.messageId) this.#lastId = reply.messageId;
      if (reply.state === "ended" && this.reply === reply) this.reply = null;
      draw();
      this.#on.onstate(this.reply);
    };
    this.#on.onstate(reply);
  }

  async #follow(reply) {
    this.#replies.add(reply);
    reply.onaccepted = () => {
      this.#kept.done(reply.key);
      this.#on.onaccepted(reply);
    };
    try {
      await reply.run();
      this.#on.onend(reply);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // Without access it goes on waiting, for a new link.
      if (error.status !== 401) this.#kept.done(reply.key);
      this.#on.onrefused(reply, error);
    } finally {
      this.#replies.delete(reply);
    }
  }

  #again() {
    if (this.reply) return;
    if (!this.#lastId) return this.#on.onlost();
    const reply = new Reply(this.#api, { replaces: this.#lastId, key: newKey() });
    reply.sessionId = this.sessionId;
    this.#start(reply);
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
