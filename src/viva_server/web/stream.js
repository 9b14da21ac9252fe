// One reply, followed to its end through lost connections and restarted servers.

import { ApiError } from "./api.js";
import { readEvents } from "./sse.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
// The server sends something every 15 s; this much silence is a dead connection.
const SILENCE_MS = 40_000;
const MAX_DAMAGES = 3;
// So long after `reply_pending` a 404 says that the message was not stored.
const PENDING_MS = 30_000;

/**
 * Made for a new message (`question` and its Idempotency-Key `key`), for another answer
 * in the place of the reply `replaces`, or for a live reply (`messageId`, with the `text`
 * that is known). `onchange` is called after each change, `onaccepted` when the server
 * has stored the message, first of all or again.
 */
export class Reply {
  state = "connecting"; // then "streaming" or "waiting", and "ended"
  status = "waiting"; // for the server to take it; then as in a snapshot
  finishReason = null;
  error = null; // the data of an error event
  retryAt = 0; // when the wait is over, in ms
  waitsFor = 0; // what the wait is for: an HTTP status, 0 for the network
  onchange = () => {};
  onaccepted = () => {};

  #api;
  #chars = 0; // code points, as the server counts
  #connection = null;
  #wake = () => {};
  #hasProgress = false;
  #damages = 0;
  #wantsStop = false;
  #isGivenUp = false;
  #pending = null; // { messageId, until }: it may be stored, look there

  constructor(
    api,
    { question = null, replaces = null, key = null, messageId = null, text = "" },
  ) {
    this.#api = api;
    this.question = question;
    this.replaces = replaces;
    this.key = key;
    this.sessionId = question?.session_id ?? null;
    this.messageId = messageId;
    if (messageId) this.status = "streaming";
    this.userMessageId = null;
    this.#setText(text);
  }

  /** Returns at the reply's end; throws ApiError for a final refusal. */
  async run() {
    const reconnect = () => this.reconnect();
    const disconnect = () => this.#connection?.abort();
    addEventListener("online", reconnect);
    addEventListener("offline", disconnect);
    try {
      for (let failures = 0; !this.#isGivenUp; failures += 1) {
        this.#hasProgress = false;
        const retryAfterMs = await this.#read();
        if (this.state === "ended") return;
        if (this.#hasProgress) failures = 0;
        await this.#pause(failures, retryAfterMs);
      }
      throw new ApiError(0, { code: "given_up" });
    } catch (error) {
      // It is not followed any more: what is there is shown, with a way on.
      this.status = "failed";
      throw error;
    } finally {
      removeEventListener("online", reconnect);
      removeEventListener("offline", disconnect);
      this.#setState("ended");
    }
  }

  /** Ends the wait for the next try now. */
  reconnect() {
    this.#wake();
  }

  /** Ends the reply, or gives up a message that the server has not taken. */
  async stop() {
    this.#wantsStop = true;
    if (this.messageId) {
      // If this fails, the next connection repeats it.
      await this.#api
        .json("POST", `/viva/chat/stream/${this.messageId}/stop`)
        .catch(() => {});
      this.#wake();
    } else {
      this.#isGivenUp = true;
      this.#connection?.abort();
      this.#wake();
    }
  }

  /** Reads one connection to its end; gives how long the server wants us to wait. */
  async #read() {
    const connection = new AbortController();
    this.#connection = connection;
    let silence;
    const listen = () => {
      clearTimeout(silence);
      silence = setTimeout(() => connection.abort(), SILENCE_MS);
    };
    listen();
    try {
      const response = await this.#open(connection.signal);
      for await (const event of readEvents(response, listen)) {
        if (await this.#take(event)) break;
      }
      this.waitsFor = 0;
      return 0;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (!this.#mayBeStored(error) && !error.isTransient) throw error;
      this.waitsFor = error.status;
      return error.retryAfterMs;
    } finally {
      clearTimeout(silence);
      connection.abort();
    }
  }

  /** Notes where the reply of a message is that may be stored, until it is not. */
  #mayBeStored({ code, status, problem }) {
    if (code === "reply_pending" && problem.message_id) {
      this.#pending = { messageId: problem.message_id, until: Date.now() + PENDING_MS };
    } else if (!this.#pending || this.messageId || status !== 404) {
      return false;
    } else if (Date.now() > this.#pending.until) {
      this.#pending = null; // it is sent again
    }
    return true;
  }

  #open(signal) {
    const messageId = this.messageId ?? this.#pending?.messageId;
    if (messageId) {
      const headers = { "Last-Event-ID": `${messageId}:${this.#chars}` };
      const path = `/viva/chat/stream/${messageId}`;
      return this.#api.open("GET", path, { headers, signal });
    }
    const headers = { "Idempotency-Key": this.key };
    if (this.replaces) {
      const path = `/viva/chat/stream/${this.replaces}/again`;
      return this.#api.open("POST", path, { headers, signal });
    }
    const body = this.question;
    return this.#api.open("POST", "/viva/chat/stream", { body, headers, signal });
  }

  /** Takes one event; says whether this connection has nothing more to give. */
  async #take({ id, data: json }) {
    const data = parsed(json);
    if (!data) return this.#startAgain();
    if (data.accepted) return this.#accept(data);
    if (data.done) return this.#finish(data);
    if ("error" in data) return this.#fail(data);
    if (typeof data.content !== "string") return false; // of a newer server
    const chars = this.#chars + countChars(data.content);
    if (id !== `${this.messageId}:${chars}`) return this.#startAgain();
    this.text += data.content;
    this.#chars = chars;
    this.#hasProgress = true;
    this.#setState("streaming");
    return false;
  }

  #accept({ session_id, message_id, user_message_id, offset }) {
    this.sessionId = session_id;
    this.messageId = message_id;
    this.status = "streaming";
    this.userMessageId = user_message_id;
    if (offset > this.#chars) return this.#startAgain();
    if (offset < this.#chars) {
      this.#setText(Array.from(this.text).slice(0, offset).join(""));
    }
    this.onaccepted(this);
    if (this.#wantsStop) this.stop();
    this.#setState("streaming");
    return false;
  }

  async #finish({ status, finish_reason, chars, sha256 }) {
    const hash = await sha256Of(this.text);
    if (chars !== this.#chars || (hash && hash !== sha256)) return this.#startAgain();
    this.status = status;
    this.finishReason = finish_reason;
    this.#setState("ended");
    return true;
  }

  #fail(error) {
    this.status = "failed";
    this.error = error;
    this.#setState("ended");
    return true;
  }

  /** What came is not what is stored: read it again from its first character. */
  #startAgain() {
    this.#damages += 1;
    if (this.#damages > MAX_DAMAGES) throw new ApiError(-1, { code: "damaged" });
    this.#setText("");
    return true;
  }

  async #pause(failures, retryAfterMs) {
    const grown = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** failures);
    // Spread, so that a restarted server is not asked by all pages at once.
    const wait = Math.max(retryAfterMs, grown * (0.75 + Math.random() / 2));
    this.retryAt = Date.now() + wait;
    this.#setState("waiting");
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, wait);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    if (!this.#isGivenUp) this.#setState("connecting");
  }

  #setText(text) {
    this.text = text;
    this.#chars = countChars(text);
  }

  #setState(state) {
    this.state = state;
    this.onchange(this);
  }
}

/** The object that an event brought; null for what is none. */
function parsed(json) {
  try {
    const data = JSON.parse(json);
    return typeof data === "object" ? data : null;
  } catch {
    return null;
  }
}

function countChars(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

/** Null where the browser has no digests: a page over http from another machine. */
async function sha256Of(text) {
  if (!globalThis.crypto?.subtle) return null;
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}

/** A new Idempotency-Key; `crypto.randomUUID` is missing over plain http. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
