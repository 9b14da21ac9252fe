// The messages of the open session: their elements, and where the log is scrolled to.

import { byId, copyOf } from "./dom.js";
import { copyCode, renderInto } from "./render.js";
import { longTime, shortTime, text } from "./text.js";

const NEAR_END_PX = 64;
const LEAST_DRAW_MS = 40;

export class Messages {
  #log = byId("log");
  #list = byId("messages");
  #older = byId("older");
  #elements = new Map();
  #sticks = true;
  #isLoading = false;

  /** `onolder` loads what is before the first message; `onagain` asks again. */
  constructor({ onolder, onagain }) {
    this.#log.addEventListener("scroll", () => this.#lookWhere(), { passive: true });
    byId("to-bottom").addEventListener("click", () => this.toEnd());
    this.#list.addEventListener("click", (event) => {
      copyCode(event);
      if (event.target.closest(".again")) onagain();
    });
    new ResizeObserver(() => this.#stayAtEnd()).observe(this.#log);
    this.#watchTop(onolder);
  }

  get isEmpty() {
    return !this.#list.hasChildNodes();
  }

  /** Whether the last ones shown are these messages of a snapshot. */
  endWith(messages) {
    const last = [...this.#list.children].slice(-2);
    return (
      last.length === messages.length &&
      messages.every(({ id, status }, n) => {
        const { messageId, status: shown = "complete" } = last[n].dataset;
        return messageId === id && shown === status;
      })
    );
  }

  clear() {
    this.#elements.clear();
    this.#list.replaceChildren();
    this.#sticks = true;
    this.#stayAtEnd();
  }

  hasOlder(isTrue) {
    this.#older.hidden = !isTrue;
  }

  has(id) {
    return this.#elements.has(id);
  }

  /** Adds a message as it stands in a snapshot, at the end; gives its element. */
  add(message) {
    const element = this.#element(message);
    this.#list.append(element);
    this.#stayAtEnd();
    return element;
  }

  /** Adds older ones before the first; what is in view stays where it is. */
  addOlder(messages) {
    const fromEnd = this.#log.scrollHeight - this.#log.scrollTop;
    this.#list.prepend(...messages.map((message) => this.#element(message)));
    this.#log.scrollTop = this.#log.scrollHeight - fromEnd;
  }

  /** The element of a message. */
  get(id) {
    return this.#elements.get(id);
  }

  /** Gives an element the id that the server chose, in the place of any other. */
  name(element, id) {
    this.#elements.delete(element.dataset.messageId);
    this.#elements.set(id, element);
    element.dataset.messageId = id;
  }

  /** Shows a reply in an element from now on. */
  follow(reply, element) {
    let timer = 0;
    let cost = 0;
    const draw = () => {
      const started = performance.now();
      timer = 0;
      showReply(element, reply);
      this.#stayAtEnd();
      cost = performance.now() - started;
    };
    draw();
    // A long reply takes long to draw: then it is drawn more rarely.
    return () => (timer ||= setTimeout(draw, Math.max(LEAST_DRAW_MS, cost * 4)));
  }

  toEnd() {
    this.#sticks = true;
    this.#stayAtEnd();
  }

  #element(message) {
    const element = copyOf("message-template");
    const isUser = message.tipo === "usuario";
    const time = element.querySelector("time");
    const date = new Date(message.created_at);
    element.classList.add(isUser ? "user" : "assistant");
    element.querySelector(".name").textContent = isUser ? text.you : text.assistant;
    time.dateTime = date.toISOString();
    time.textContent = shortTime(date);
    time.title = longTime(date);
    if (message.id) this.name(element, message.id);
    if (isUser) {
      const body = element.querySelector(".text");
      body.dir = "auto";
      body.textContent = message.conteudo;
    } else {
      showReply(element, {
        text: message.conteudo,
        status: message.status,
        finishReason: message.finish_reason,
      });
    }
    return element;
  }

  #lookWhere() {
    const { scrollHeight, scrollTop, clientHeight } = this.#log;
    this.#sticks = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    byId("to-bottom").hidden = this.#sticks;
  }

  #stayAtEnd() {
    if (this.#sticks) this.#log.scrollTop = this.#log.scrollHeight;
    else byId("to-bottom").hidden = false;
  }

  #watchTop(onolder) {
    const load = async () => {
      if (this.#isLoading || this.#older.hidden) return;
      this.#isLoading = true;
      try {
        await onolder();
      } finally {
        this.#isLoading = false;
        // Observed anew, it is told again if it is still in view, or at the next try.
        watcher.unobserve(this.#older);
        setTimeout(() => watcher.observe(this.#older), 300);
      }
    };
    const watcher = new IntersectionObserver(
      ([entry]) => entry.isIntersecting && load(),
      { root: this.#log, rootMargin: "200px" },
    );
    watcher.observe(this.#older);
  }
}

function showReply(element, { text: markdown, status, finishReason, error }) {
  const note = element.querySelector(".note");
  const isLive = status === "streaming" || status === "waiting";
  const words = isLive ? "" : noteOf(status, finishReason, error);
  element.dataset.status = status;
  renderInto(element.querySelector(".text"), markdown);
  note.hidden = !words;
  note.firstElementChild.textContent = words;
}

function noteOf(status, finishReason, error) {
  // The server's own words are in Portuguese.
  if (error) return text.lang === "en" ? text.failed : error.error;
  if (status === "failed" && finishReason === "upstream_error") return text.failed;
  return text.notes[finishReason] ?? (status === "complete" ? "" : text.failed);
}
