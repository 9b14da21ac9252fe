// Messages on WhatsApp: the newest, those of a phone, and the way of one.

import { byId } from "../dom.js";
import { make, mark, say, Table, words } from "./table.js";
import { text } from "./text.js";
import { showTimeline } from "./timeline.js";
import { chatName, fullTime, when, wordOf } from "./write.js";

const MAX_PHONE_DIGITS = 15;
const MIN_PHONE_DIGITS = 8;
const TONES = {
  skipped: null,
  waiting: "warn",
  running: "good",
  dead: "bad",
  answered: "good",
  sending: "good",
  unknown: "warn",
  sent: "good",
  dropped: "warn",
};

export class Messages {
  #api;
  #tell;
  #announce;
  #table;
  #newest = [];
  #phone = null; // whose messages are shown instead of the newest
  #traced = null;
  #shown = ""; // the trace, as it came
  #opener = null;
  #asking = 0;

  /**
   * `tell` shows a sentence, an empty one takes it away; `announce` tells one to a
   * screen reader alone.
   */
  constructor(api, { tell, announce }) {
    this.#api = api;
    this.#tell = tell;
    this.#announce = announce;
    this.#table = this.#makeTable();
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#search(byId("wanted").value.toWellFormed().trim());
    });
    byId("wanted").addEventListener("input", () => this.#tell(""));
    byId("show-newest").addEventListener("click", () => this.#showNewest());
    byId("back").addEventListener("click", () => this.#leaveTrace());
  }

  /** Shows the newest ones, unless others are looked at. */
  show(newest) {
    this.#newest = newest;
    if (this.#phone === null) this.#showList(newest, text.newest, text.noMessages);
  }

  /** Looks again at the message that is shown; throws ApiError. */
  async refresh() {
    if (this.#traced === null) return;
    const id = this.#traced;
    const trace = await this.#load(id).catch((error) => {
      if (error.status === 404) return null; // it was erased meanwhile
      throw error;
    });
    if (trace && id === this.#traced) this.#draw(trace);
  }

  /** Shows the way of a message; `opener` gets the focus back. */
  async trace(id, opener = null) {
    this.#tell("");
    const asking = (this.#asking += 1);
    const trace = await this.#attempt(() => this.#load(id), text.notKnown);
    if (!trace || asking !== this.#asking) return;
    this.#traced = id;
    this.#opener = opener;
    this.#shown = "";
    say(byId("trace-id"), id);
    this.#draw(trace);
    byId("list").hidden = true;
    byId("trace").hidden = false;
    byId("trace-title").focus();
    byId("messages").scrollIntoView({ block: "start" });
  }

  #makeTable() {
    return new Table("messages-table", {
      key: ({ instance, message_id }) => `${instance} ${message_id}`,
      empty: text.noMessages,
      columns: [
        words(text.when, ({ sent_at }) => when(new Date(sent_at)), {
          kind: "number",
          title: ({ sent_at }) => fullTime(new Date(sent_at)),
        }),
        words(text.chat, ({ chat }) => chatName(chat), {
          kind: "name",
          note: ({ instance }) => instance,
        }),
        words(text.state, ({ state }) => wordOf(text.states, state), {
          kind: "long",
          tone: ({ state }) => TONES[state] ?? null,
          note: why,
        }),
        traceColumn((id, button) => this.trace(id, button)),
      ],
    });
  }

  #load(id) {
    return this.#api.json("GET", `/whatsapp/trace/${encodeURIComponent(id)}`);
  }

  #draw(trace) {
    const shown = JSON.stringify(trace);
    if (shown === this.#shown) return;
    this.#shown = shown;
    showTimeline(byId("timeline"), trace);
  }

  async #search(wanted) {
    if (!wanted) return;
    if (!isPhone(wanted)) {
      await this.trace(wanted, byId("wanted"));
      return;
    }
    this.#tell("");
    const asking = (this.#asking += 1);
    // In a body: a phone in an address ends up in the logs of proxies.
    const found = await this.#attempt(
      () => this.#api.json("POST", "/viva/operator/messages/search", { body: { phone: wanted } }),
      text.notAPhone,
    );
    if (!found || asking !== this.#asking) return;
    this.#phone = wanted;
    this.#closeTrace();
    this.#showList(found.messages, text.ofPhone(wanted), text.noneOfPhone);
    byId("show-newest").hidden = false;
    this.#announce(found.messages.length ? text.ofPhone(wanted) : text.noneOfPhone);
  }

  #showNewest() {
    this.#phone = null;
    byId("show-newest").hidden = true;
    byId("wanted").value = "";
    this.show(this.#newest);
    byId("wanted").focus();
  }

  #showList(rows, caption, empty) {
    say(byId("list-caption"), caption);
    this.#table.show(rows, empty);
  }

  #leaveTrace() {
    const opener = this.#opener;
    this.#closeTrace();
    (opener?.isConnected ? opener : byId("messages-title")).focus();
  }

  #closeTrace() {
    this.#asking += 1;
    this.#traced = null;
    byId("trace").hidden = true;
    byId("list").hidden = false;
  }

  async #attempt(work, refusal) {
    try {
      return await work();
    } catch (error) {
      if (error.status === undefined) throw error;
      this.#tell([400, 404, 422].includes(error.status) ? refusal : text.failed);
      return null;
    }
  }
}

/** A column with a button that shows the way of the row's message. */
export function traceColumn(onclick) {
  return {
    label: text.trace,
    kind: "action",
    start(cell) {
      const button = make("button", { type: "button", class: "quiet" }, text.trace);
      button.addEventListener("click", () => onclick(button.dataset.id, button));
      cell.append(button);
    },
    fill(cell, { message_id }) {
      const button = cell.firstElementChild;
      button.hidden = !message_id;
      if (!message_id) return;
      button.dataset.id = message_id;
      mark(button, "aria-label", text.traceOf(message_id));
    },
  };
}

/** The receipt of what was sent, else the reason of what was not. */
function why({ state, reason, receipt }) {
  return state === "sent" && receipt
    ? wordOf(text.receipts, receipt)
    : wordOf(text.reasons, reason);
}

/** WhatsApp's ids have letters in them; a phone has none, but for its domain. */
function isPhone(wanted) {
  if (wanted.includes("@")) return true;
  const digits = wanted.replace(/\D/g, "").length;
  return (
    /^[\d\s()+./-]+$/.test(wanted) && digits >= MIN_PHONE_DIGITS && digits <= MAX_PHONE_DIGITS
  );
}
