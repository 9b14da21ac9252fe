// What the page keeps in the browser, so that nothing typed is lost: a draft for each
// session, and the messages that the server has not taken yet, in their order.

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
    return this.#read("drafts", {})[sessionId ?? FIRST] ?? "";
  }

  keepDraft(sessionId, text) {
    const { [sessionId ?? FIRST]: _, ...drafts } = this.#read("drafts", {});
    if (text) drafts[sessionId ?? FIRST] = text;
    this.#write("drafts", drafts);
  }

  /** The messages that wait, as {question, key}. */
  get waiting() {
    return this.#read("waiting", []);
  }

  wait(message) {
    this.#write("waiting", [...this.waiting, message]);
  }

  /** Takes out a message that waits no more. */
  done(key) {
    if (key) this.#write("waiting", this.waiting.filter((each) => each.key !== key));
  }

  #read(what, none) {
    try {
      return JSON.parse(localStorage.getItem(`${this.#name}:${what}`)) ?? none;
    } catch {
      return none; // no storage, or not ours
    }
  }

  #write(what, value) {
    try {
      localStorage.setItem(`${this.#name}:${what}`, JSON.stringify(value));
    } catch {
      // Full, or none: then the tab alone has it.
    }
  }
}
