// The events of a stream.

import { ApiError } from "./api.js";

/** The parser of WHATWG's HTML, § 9.2.6, for text in pieces that may be cut anywhere. */
export class EventParser {
  #line = "";
  #afterCr = false;
  #atStart = true;
  #id = "";
  #data = [];

  /** Gives the events that this piece completes, as {id, data}. */
  push(text) {
    const events = [];
    let from = 0;
    for (let i = 0; i < text.length; i += 1) {
      const char = text[i];
      const isRestOfCrLf = this.#afterCr && char === "\n";
      this.#afterCr = char === "\r";
      if (isRestOfCrLf) {
        from = i + 1;
      } else if (char === "\n" || char === "\r") {
        this.#takeLine(this.#line + text.slice(from, i), events);
        this.#line = "";
        from = i + 1;
      }
    }
    this.#line += text.slice(from);
    return events;
  }

  #takeLine(line, events) {
    if (this.#atStart) {
      this.#atStart = false;
      line = line.replace(/^\uFEFF/, "");
    }
    if (line === "") {
      if (this.#data.length) events.push({ id: this.#id, data: this.#data.join("\n") });
      this.#data = [];
      return;
    }
    const [, name, value] = /^([^:]*)(?:: ?)?(.*)$/su.exec(line);
    if (name === "data") this.#data.push(value);
    else if (name === "id" && !value.includes("\0")) this.#id = value;
  }
}

/** Yields the events of a stream; `onbytes` is called for each piece that comes. */
export async function* readEvents(response, onbytes) {
  const parser = new EventParser();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(() => {
        throw new ApiError(0);
      });
      if (done) return;
      onbytes();
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
