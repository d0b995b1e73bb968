// A WebSocket that comes back.
//
// States: "connecting", "open", "waiting" (between two attempts), "stopped" (the server said that
// trying again is of no use, or the page did). Events: "state", "message" with the decoded object in
// `detail`, and "bytes" with the ArrayBuffer of a binary message.

const FIRST_DELAY_MS = 400;
const LONGEST_DELAY_MS = 20_000;
const ASK_AFTER_MS = 20_000; // of silence: is anyone there?
const ANSWER_WITHIN_MS = 8_000;

const _ = window.gettext ?? ((text) => text); // Django's catalogue, where the page has it

// After these close codes, coming back is of no use. A page may say it better: `new Live(url, final)`.
export const FINAL = {
  4401: { why: _("You are logged out."), link: _("Log in again"), to: () => `/login/?next=${location.pathname}` },
  4404: { why: _("This is gone."), link: _("To the start"), to: () => "/" },
  4409: { why: _("You are logged in as somebody else."), link: _("Go on as them"), to: () => location.pathname },
};
export const GONE = 4404;
export const LOGGED_OUT = 4401;
export const SOMEBODY_ELSE = 4409; // the page's own finding, never on the wire

export class Live extends EventTarget {
  #url;
  #socket = null;
  #state = "waiting";
  #attempts = 0;
  #next = null; // the timer of the next attempt
  #watch = null; // the timer that ends a silence

  // `url` is a function: what the page has seen changes from one connection to the next.
  constructor(url, final = {}) {
    super();
    this.#url = url;
    this.final = { ...FINAL, ...final };
    // A laptop wakes up, a phone finds a network, a tab is looked at again: don't wait.
    addEventListener("online", () => this.now());
    addEventListener("pageshow", (event) => event.persisted && this.now());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.now();
    });
  }

  get state() {
    return this.#state;
  }

  get isOpen() {
    return this.#state === "open";
  }

  connect() {
    clearTimeout(this.#next);
    this.#enter("connecting");
    const url = new URL(this.#url(), location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => {
      this.#enter("open");
      this.#heard();
    };
    socket.onmessage = (event) => {
      // Only now: a server that accepts and hangs up at once must not be asked in a hot loop.
      this.#attempts = 0;
      this.#heard();
      const isText = typeof event.data === "string";
      const detail = isText ? JSON.parse(event.data) : event.data;
      this.dispatchEvent(new CustomEvent(isText ? "message" : "bytes", { detail }));
    };
    socket.onclose = (event) => {
      if (event.code in this.final) this.stop(event.code);
      else this.#lost();
    };
    this.#expect();
  }

  // Try at once, or make sure that what looks open still is.
  now() {
    if (this.#state === "waiting") this.connect();
    else if (this.#state === "open") this.#ask();
  }

  // Give up a connection that doesn't answer, and make a new one.
  renew() {
    if (this.#state === "stopped") return;
    this.#drop();
    this.#lost();
  }

  stop(code) {
    this.#drop();
    this.reason = this.final[code].why;
    this.code = code;
    this.#enter("stopped");
  }

  // Returns false if there is no connection to say it over.
  send(command) {
    return this.sendBytes(JSON.stringify(command));
  }

  // The same for what is encoded already.
  sendBytes(data) {
    if (!this.isOpen || this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(data);
    return true;
  }

  #enter(state) {
    this.#state = state;
    this.dispatchEvent(new Event("state"));
  }

  #lost() {
    this.#drop();
    // Twice as long each time, and by lot within that: a thousand pages that lost the same server
    // don't all come back in the same moment.
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#attempts);
    this.#attempts += 1;
    this.#next = setTimeout(() => this.connect(), longest * (0.5 + Math.random() / 2));
    this.#enter("waiting");
  }

  #drop() {
    clearTimeout(this.#next);
    clearTimeout(this.#watch);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  // A browser tells a page nothing about pings, and a dead network says nothing at all: so the page
  // asks, and takes silence for an answer.
  #heard() {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => this.#ask(), ASK_AFTER_MS);
  }

  #ask() {
    if (this.send({ type: "ping" })) this.#expect();
    else this.renew();
  }

  #expect() {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => this.renew(), ANSWER_WITHIN_MS);
  }
}

// A server on the reader's own machine is there without a network, too.
const NEEDS_NETWORK = !/^(localhost|127\..*|\[::1\])$/.test(location.hostname);
const WORDS = {
  connecting: _("Connecting…"),
  open: _("Connected"),
  waiting: _("Connection lost, trying again…"),
};

// Show the state of `live` in the element that the template made for it.
export function showConnection(live) {
  const root = document.querySelector(".connection");
  const words = root.querySelector("[data-slot=state]");
  const retry = root.querySelector("[data-retry]");
  const way = root.querySelector("[data-way-out]");
  let opened = false;
  const show = () => {
    // The attempts after a loss flicker between "waiting" and "connecting": to a reader it is one.
    const state = live.state === "connecting" && opened ? "waiting" : live.state;
    opened ||= state === "open";
    root.dataset.state = state;
    const isOffline = state === "waiting" && NEEDS_NETWORK && !navigator.onLine;
    const text = isOffline ? _("You are offline") : (WORDS[state] ?? live.reason);
    if (words.textContent !== text) words.textContent = text; // else it is read out again
    retry.hidden = state !== "waiting";
    way.hidden = state !== "stopped";
    if (state === "stopped") {
      way.textContent = live.final[live.code].link;
      way.href = live.final[live.code].to();
    }
  };
  live.addEventListener("state", show);
  retry.addEventListener("click", () => live.now());
  show();
}
