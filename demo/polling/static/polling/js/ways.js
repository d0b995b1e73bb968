// The four ways to hear of the feed. Each has the same face:
//
// - start(): from now on; stop()
// - `after`: the number of the last message, from which it goes on when a connection was lost
// - `state`: "off", "on", "waiting" (it will try again), or "refused" with `why`
// - handlers: message(way, message, at), the page's time in milliseconds at which it was there;
//   state(way); missed(way), when the server does not keep what was missed any more

const AGAIN_MS = 1000; // after a failure

const now = () => performance.timeOrigin + performance.now();

class Way {
  state = "off";
  why = "";
  after = null;
  #again = null;

  constructor(name, settings, handlers) {
    Object.assign(this, { name, settings, handlers });
  }

  get isOn() {
    return this.state === "on" || this.state === "waiting";
  }

  start() {
    if (this.isOn) return;
    this.after = null;
    this.enter("on");
    this.open();
  }

  stop() {
    clearTimeout(this.#again);
    this.close();
    this.enter("off");
  }

  // A rate is part of the question: ask anew, from where we are.
  renew() {
    if (!this.isOn) return;
    clearTimeout(this.#again);
    this.close();
    this.open();
  }

  enter(state, why = "") {
    this.state = state;
    this.why = why;
    this.handlers.state(this);
  }

  refuse(why) {
    this.close();
    this.enter("refused", why);
  }

  later(ms, what = () => this.open()) {
    clearTimeout(this.#again);
    this.#again = setTimeout(what, ms);
  }

  lose(ms = AGAIN_MS) {
    this.close();
    if (!this.isOn) return;
    this.enter("waiting");
    this.later(ms);
  }

  take(message, at = now()) {
    if (this.state === "waiting") this.enter("on");
    if (this.after !== null && message.id <= this.after) return;
    this.after = message.id;
    this.handlers.message(this, message, at);
  }

  url(path) {
    const { run, rate } = this.settings;
    const query = new URLSearchParams({ run, rate });
    if (this.after !== null) query.set("after", this.after);
    return `${path}?${query}`;
  }
}

// One request for each answer. What differs is only when the next one is made.
class Asking extends Way {
  #controller = null;

  async open() {
    const controller = (this.#controller = new AbortController());
    const began = performance.now();
    try {
      const response = await fetch(this.url(this.path), {
        signal: controller.signal,
        cache: "no-store",
      });
      if (response.status === 401) return this.refuse(gettext("You are logged out."));
      const answer = await response.json();
      if (controller.signal.aborted) return;
      if (response.status === 429 || response.status === 503) {
        return this.lose(1000 * (answer.retry_after_s ?? 1));
      }
      if (!response.ok) return this.refuse(answer.text);
      if (this.state === "waiting") this.enter("on");
      const at = now();
      for (const message of answer.messages) this.take(message, at);
      if (answer.missed) this.handlers.missed(this);
      this.after = Math.max(this.after ?? 0, answer.last);
      this.later(this.pause(performance.now() - began));
    } catch (error) {
      if (error.name !== "AbortError") this.lose();
    }
  }

  close() {
    this.#controller?.abort();
    this.#controller = null;
  }
}

class Polling extends Asking {
  path = "/polling/poll/";

  pause(took) {
    return Math.max(0, this.settings.interval - took);
  }
}

class LongPolling extends Asking {
  path = "/polling/wait/";

  pause() {
    return 0;
  }
}

class Stream extends Way {
  #source = null;

  open() {
    const source = (this.#source = new EventSource(this.url("/polling/stream/")));
    source.onmessage = ({ data }) => this.take(JSON.parse(data));
    source.addEventListener("missed", () => this.handlers.missed(this));
    source.onopen = () => {
      if (this.state === "waiting") this.enter("on");
    };
    source.onerror = () => {
      // It tries again by itself, with the last id, unless the answer was no stream.
      if (source.readyState === EventSource.CLOSED) this.lose(5 * AGAIN_MS);
      else this.enter("waiting");
    };
  }

  close() {
    this.#source?.close();
    this.#source = null;
  }
}

const FINAL = {
  4401: gettext("You are logged out."),
  4429: gettext("You have too many of these open. Close another page first."),
};

class Socket extends Way {
  #socket = null;

  // What the handshake has agreed, as this browser says it.
  get extensions() {
    return this.#socket?.extensions ?? "";
  }

  open() {
    const url = new URL(this.url("/ws/polling/feed/"), location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = (this.#socket = new WebSocket(url));
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.missed) this.handlers.missed(this);
      else this.take(message);
    };
    socket.onclose = ({ code }) => {
      if (code in FINAL) this.refuse(FINAL[code]);
      else this.lose();
    };
  }

  // Returns false if there is no connection to say it over.
  say(text) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(text);
    return true;
  }

  close() {
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    socket.close();
  }
}

export function waysFor(settings, handlers) {
  return {
    poll: new Polling("poll", settings, handlers),
    wait: new LongPolling("wait", settings, handlers),
    stream: new Stream("stream", settings, handlers),
    socket: new Socket("socket", settings, handlers),
  };
}
