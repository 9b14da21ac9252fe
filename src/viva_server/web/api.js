// Calls of the server's API.

// Whatever a server or a proxy in front of it says from 500 on may pass: 520 to 530 are
// those of a well-known one.
const TRANSIENT = new Set([0, 408, 425, 429]);
const FIRST_SERVER_ERROR = 500;

/** An answer that is none: `status` 0 when there was no answer at all. */
export class ApiError extends Error {
  constructor(status, problem = {}, retryAfterMs = 0) {
    super(problem.detail || problem.code || `status ${status}`);
    this.status = status;
    this.code = problem.code ?? "";
    this.problem = problem;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the same request may succeed later. */
  get isTransient() {
    return TRANSIENT.has(this.status) || this.status >= FIRST_SERVER_ERROR;
  }
}

export class Api {
  #token;

  constructor(base, token) {
    this.base = base;
    this.#token = token;
  }

  /** Gives the JSON of the answer; null without one. */
  async json(method, path, options) {
    const response = await this.open(method, path, options);
    try {
      return response.status === 204 ? null : await response.json();
    } catch {
      throw new ApiError(0);
    }
  }

  /** Gives the response once its head is there; throws ApiError for any but 2xx. */
  async open(method, path, { body, headers = {}, signal } = {}) {
    const init = { method, signal, headers: { ...headers }, cache: "no-store" };
    if (this.#token) init.headers.Authorization = `Bearer ${this.#token}`;
    if (body !== undefined) {
      init.headers["Content-Type"] = "application/json";
      init.body = JSON.stringify(body);
    }
    let response;
    try {
      response = await fetch(this.base + path, init);
    } catch {
      throw new ApiError(0);
    }
    if (!response.ok) throw await problemOf(response);
    return response;
  }
}

async function problemOf(response) {
  const problem = await response.json().catch(() => ({}));
  const seconds = Number(response.headers.get("Retry-After")) || 0;
  return new ApiError(response.status, problem ?? {}, seconds * 1000);
}
