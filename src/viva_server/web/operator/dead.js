// What could not be answered, sent or applied, and its replay.

import { byId } from "../dom.js";
import { traceColumn } from "./messages.js";
import { make, mark, say, Table, words } from "./table.js";
import { text } from "./text.js";
import { chatName, when, wordOf } from "./write.js";

const MAX_IDS = 100;

export class Dead {
  #api;
  #on;
  #table;
  #items = [];
  #next = null;
  #pages = 1;
  #counts = "";
  #isBusy = false;

  /**
   * `ontrace` gets the id of a message and its button; `tell` shows a person a
   * sentence; `onreplayed` is called after a replay.
   */
  constructor(api, on) {
    this.#api = api;
    this.#on = on;
    this.#table = this.#makeTable();
    byId("more-dead").addEventListener("click", () => this.#more());
    byId("replay-all").addEventListener("click", () => this.#replayAll());
  }

  /** Loads again what is shown, where it may have changed; throws ApiError. */
  async refresh({ dead_turns, dead_parts, dead_news }) {
    const counts = [dead_turns, dead_parts, dead_news].join();
    if (this.#pages > 1 && counts === this.#counts) return;
    let items = [];
    let next = null;
    for (let page = 0; page < this.#pages && (page === 0 || next); page += 1) {
      const loaded = await this.#load(next);
      items = [...items, ...loaded.items];
      next = loaded.next;
    }
    this.#counts = counts;
    this.#show(items, next);
  }

  #makeTable() {
    return new Table("dead-table", {
      key: ({ id }) => id,
      empty: text.noDead,
      columns: [
        words(text.kind, ({ kind }) => wordOf(text.deadKinds, kind), {
          note: ({ state }) => wordOf(text.deadStates, state),
          tone: ({ state }) => (state === "unknown" ? "warn" : "bad"),
        }),
        words(text.chat, ({ chat }) => chatName(chat), {
          kind: "name",
          note: ({ instance }) => instance,
        }),
        words(text.reason, ({ reason }) => wordOf(text.reasons, reason) || "–", {
          kind: "long",
          note: ({ since }) => when(new Date(since)),
        }),
        traceColumn(this.#on.ontrace),
        this.#replayColumn(),
      ],
    });
  }

  #replayColumn() {
    return {
      label: text.action,
      kind: "action",
      start: (cell) => {
        const button = make("button", { type: "button", class: "quiet" }, text.replay);
        button.addEventListener("click", () => this.#replayOne(button.dataset.id));
        cell.append(button);
      },
      fill: (cell, item) => {
        const button = cell.firstElementChild;
        button.dataset.id = item.id;
        mark(button, "aria-label", text.replayOf(whatOf(item), chatName(item.chat)));
      },
    };
  }

  #load(before) {
    const query = before ? `?${new URLSearchParams({ before })}` : "";
    return this.#api.json("GET", `/viva/operator/dead${query}`);
  }

  #show(items, next) {
    this.#items = items;
    this.#next = next;
    this.#table.show(items);
    byId("more-dead").hidden = !next;
    const certain = this.#certain.length;
    byId("replay-all").hidden = certain < 2;
    say(byId("replay-all"), text.replayAll(certain));
  }

  /** Those of which it is sure that nobody got them. */
  get #certain() {
    return this.#items.filter(({ state }) => state === "dead").map(({ id }) => id);
  }

  async #more() {
    const page = await this.#load(this.#next).catch(() => null);
    if (!page) return; // the button stays for another try
    this.#pages += 1;
    this.#show([...this.#items, ...page.items], page.next);
  }

  async #replayOne(id) {
    const item = this.#items.find((each) => each.id === id);
    if (!item) return;
    if (item.state === "unknown") {
      if (!(await ask(text.confirmUnknownTitle, text.confirmUnknownText))) return;
    }
    await this.#replay([id]);
  }

  async #replayAll() {
    const ids = this.#certain.slice(0, MAX_IDS);
    if (await ask(text.confirmAllTitle(ids.length), text.confirmAllText)) {
      await this.#replay(ids);
    }
  }

  async #replay(ids) {
    if (this.#isBusy) return;
    this.#isBusy = true;
    this.#on.tell("");
    try {
      const path = "/viva/operator/dead/replay";
      const { items } = await this.#api.json("POST", path, { body: { ids } });
      this.#say(items.map(({ outcome }) => outcome));
      this.#counts = "";
      byId("dead-title").focus();
      await this.#on.onreplayed();
    } catch (error) {
      if (error.status === undefined) throw error;
      this.#on.tell(text.failed);
    } finally {
      this.#isBusy = false;
    }
  }

  #say(outcomes) {
    const done = outcomes.filter((outcome) => outcome === "replayed").length;
    if (done) this.#on.tell("", text.replayed(done));
    else this.#on.tell(outcomes.includes("chat_busy") ? text.chatBusy : text.notDead);
  }
}

const whatOf = ({ kind, state }) =>
  `${wordOf(text.deadKinds, kind)} · ${wordOf(text.deadStates, state)}`;

/** Asks before something is done; gives the answer. */
function ask(title, words) {
  const dialog = byId("confirm");
  say(byId("confirm-title"), title);
  say(byId("confirm-text"), words);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
    byId("confirm-no").onclick = () => dialog.close();
    byId("confirm-yes").onclick = () => dialog.close("yes");
  });
}
