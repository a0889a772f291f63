// Talks to the server: requests with the token of this tab, and the WebSocket of live progress.

const BASE = "/api/v1";
const KEY = "otad-token";
const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 60_000;

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

/** What the server refused, with its code and its sentence. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

async function ask(method, path, body) {
  const headers = {};
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(BASE + path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
  });
  if (answer.status === 204) return null;
  const shape = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, shape.error?.code ?? "HTTP", shape.error?.message ?? answer.statusText);
  return shape;
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => ask("POST", path, body);

/** Makes a path of parts that may hold anything. */
export const path = (...parts) => `/${parts.map(encodeURIComponent).join("/")}`;

function base64url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Listens to live progress; comes back with growing pauses when the line breaks. */
export class Live {
  #socket = null;
  #timer = 0;
  #wait = FIRST_RETRY_MS;
  #on = false;

  constructor(heard, changed) {
    this.heard = heard;
    this.changed = changed;
  }

  start() {
    this.#on = true;
    this.#wait = FIRST_RETRY_MS;
    this.#connect();
  }

  stop() {
    this.#on = false;
    clearTimeout(this.#timer);
    this.#socket?.close();
    this.#socket = null;
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#socket?.close();
    const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${BASE}/progress`;
    // A page cannot add a header to a WebSocket: the token travels as the name of a protocol, in letters that such a name may have.
    const protocols = token.get() ? ["otad.progress", `bearer64.${base64url(token.get())}`] : ["otad.progress"];
    const socket = new WebSocket(url, protocols);
    this.#socket = socket;
    socket.onopen = () => {
      this.#wait = FIRST_RETRY_MS;
      this.changed(true);
    };
    socket.onmessage = (event) => {
      try {
        this.heard(JSON.parse(event.data));
      } catch (error) {
        console.error("a frame that cannot be read", error);
      }
    };
    socket.onclose = () => {
      if (!this.#on || this.#socket !== socket) return;
      this.changed(false);
      // Not everybody at once after a restart of the server.
      this.#timer = setTimeout(() => this.#connect(), this.#wait * (0.5 + Math.random()));
      this.#wait = Math.min(this.#wait * 2, LAST_RETRY_MS);
    };
  }
}
