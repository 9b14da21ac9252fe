// Looks again every few seconds, but not while nobody looks at the page.

const EVERY_MS = 3_000;
const LONGEST_MS = 15_000;

/** `load` looks; `onstate` is called with this object whenever its state changes. */
export class Refresh {
  state = "loading"; // live, paused, lost
  at = null; // of the last good look
  retryAt = 0;
  error = null;

  #load;
  #onstate;
  #timer = 0;
  #failures = 0;
  #isPaused = false;
  #running = null;

  constructor(load, onstate) {
    this.#load = load;
    this.#onstate = onstate;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) clearTimeout(this.#timer);
      else if (!this.#isPaused) this.now();
    });
    addEventListener("online", () => this.state === "lost" && this.now());
  }

  /** Looks at once; a look that is under way is waited for instead. */
  now() {
    clearTimeout(this.#timer);
    this.#running ??= this.#look().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  pause() {
    this.#isPaused = true;
    clearTimeout(this.#timer);
    this.#tell("paused");
  }

  resume() {
    this.#isPaused = false;
    return this.now();
  }

  /** Stops for good. */
  stop() {
    this.#isPaused = true;
    clearTimeout(this.#timer);
  }

  get isPaused() {
    return this.#isPaused;
  }

  async #look() {
    try {
      await this.#load();
      this.#failures = 0;
      this.at = new Date();
      this.error = null;
      this.#plan(EVERY_MS);
      this.#tell(this.#isPaused ? "paused" : "live");
    } catch (error) {
      if (error.status === undefined) throw error;
      this.error = error;
      const wait = Math.min(1000 * 2 ** this.#failures, LONGEST_MS);
      this.#failures += 1;
      this.#plan(Math.max(wait, error.retryAfterMs));
      this.#tell(this.#isPaused ? "paused" : "lost");
    }
  }

  #plan(wait) {
    this.retryAt = Date.now() + wait;
    if (this.#isPaused || document.hidden) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.now(), wait);
  }

  #tell(state) {
    this.state = state;
    this.#onstate(this);
  }
}
