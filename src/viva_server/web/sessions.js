// The list of sessions at the side.

import { byId, copyOf } from "./dom.js";
import { shortTime, text } from "./text.js";

const PAGE_SIZE = 30;
const MAX_PAGE_SIZE = 100;

export class Sessions {
  #api;
  #onopen;
  #ondelete;
  #items = [];
  #pages = 1;
  #openId = null;

  /** `onopen` gets a session's id, `ondelete` the session that a person wants away. */
  constructor(api, { onopen, ondelete }) {
    this.#api = api;
    this.#onopen = onopen;
    this.#ondelete = ondelete;
    byId("more-sessions").addEventListener("click", () => this.#more());
  }

  /** Loads the newest again, as many as are shown. */
  async refresh() {
    const size = Math.min(PAGE_SIZE * this.#pages, MAX_PAGE_SIZE);
    const page = await this.#load(1, size);
    const older = this.#items.slice(size);
    this.#show([...page.items, ...older], page.total);
  }

  /** Takes a session that was deleted out of the list. */
  remove(sessionId) {
    this.#items = this.#items.filter(({ id }) => id !== sessionId);
    this.#draw();
  }

  /** Marks the session that is open. */
  mark(sessionId) {
    this.#openId = sessionId;
    this.#draw();
  }

  find(sessionId) {
    return this.#items.find(({ id }) => id === sessionId);
  }

  /** A session without a message, to be used before a new one is made. */
  get empty() {
    return this.#items.find(({ message_count }) => message_count === 0);
  }

  /** Where the focus goes when a session has gone. */
  focus() {
    (byId("sessions").querySelector("button") ?? byId("new")).focus();
  }

  async #more() {
    const page = await this.#load(this.#pages + 1, PAGE_SIZE).catch(() => null);
    if (!page) return; // the button stays for another try
    this.#pages += 1;
    this.#show([...this.#items, ...page.items], page.total);
  }

  #load(page, size) {
    const path = `/viva/chat/sessions?page=${page}&page_size=${size}`;
    return this.#api.json("GET", path);
  }

  #show(items, total) {
    // A session that moved up between two pages comes twice; the first is the newer.
    this.#items = [...new Map(items.toReversed().map((item) => [item.id, item])).values()];
    this.#items.reverse();
    byId("more-sessions").hidden = this.#items.length >= total;
    this.#draw();
  }

  #draw() {
    const list = byId("sessions");
    const focused = document.activeElement?.closest("#sessions li")?.dataset.id;
    list.replaceChildren(...this.#items.map((item) => this.#element(item)));
    list.querySelector(`[data-id="${focused}"] .open`)?.focus();
  }

  #element(item) {
    const element = copyOf("session-template");
    const open = element.querySelector(".open");
    const title = item.titulo || text.newChat;
    const time = new Date(item.last_message_at ?? item.created_at);
    element.dataset.id = item.id;
    open.querySelector(".name").textContent = title;
    open.querySelector(".facts").textContent =
      `${text.messageCount(item.message_count)} · ${shortTime(time)}`;
    if (item.id === this.#openId) open.setAttribute("aria-current", "true");
    open.addEventListener("click", () => this.#onopen(item.id));
    const remove = element.querySelector(".delete");
    remove.setAttribute("aria-label", text.deleteChat(title));
    remove.addEventListener("click", () => this.#ondelete(item));
    return element;
  }
}
