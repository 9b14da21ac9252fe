// What the page keeps in the browser, so that nothing typed is lost: a draft for each
// session, and the messages that the server has not taken yet, in their order. Each has
// an entry of its own: another tab may write at the same time.

/** The name of a session that the server has not made yet. */
const FIRST = "first";

export class Kept {
  #name;

  /** `person` tells one person's from another's in the same browser. */
  constructor(base, person) {
    this.#name = `viva:${base}:${person}`;
  }

  /** The text that was typed in a session and not sent. */
  draft(sessionId) {
    return this.#read(this.#draftOf(sessionId)) ?? "";
  }

  keepDraft(sessionId, text) {
    this.#write(this.#draftOf(sessionId), text || undefined);
  }

  /** The messages that wait, as {question, key}, the oldest first. */
  get waiting() {
    const own = `${this.#name}:waiting:`;
    const found = [];
    try {
      for (const name of Object.keys(localStorage)) {
        if (name.startsWith(own)) found.push({ ...this.#read(name), key: name.slice(own.length) });
      }
    } catch {
      // No storage: none waits.
    }
    return found.filter(({ question }) => question).sort((a, b) => a.at - b.at);
  }

  wait({ question, key }) {
    const at = performance.timeOrigin + performance.now(); // finer than Date.now()
    this.#write(`${this.#name}:waiting:${key}`, { question, at });
  }

  /** Takes out a message that waits no more. */
  done(key) {
    if (key) this.#write(`${this.#name}:waiting:${key}`, undefined);
  }

  #draftOf(sessionId) {
    return `${this.#name}:draft:${sessionId ?? FIRST}`;
  }

  #read(name) {
    try {
      return JSON.parse(localStorage.getItem(name));
    } catch {
      return null; // no storage, or not ours
    }
  }

  #write(name, value) {
    try {
      if (value === undefined) localStorage.removeItem(name);
      else localStorage.setItem(name, JSON.stringify(value));
    } catch {
      // Full, or none: then the tab alone has it.
    }
  }
}
