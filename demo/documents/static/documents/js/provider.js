// y-websocket's provider, which here speaks for its own page only, and its connection as the site's
// pages show theirs.

import { FINAL } from "../../live/live.js";
import { WebsocketProvider } from "../vendor/editor.js";

const AUTH = 2; // the type of the message that says what is not allowed
const TOO_MANY = 4429;

const reload = () => location.pathname;
const REASONS = {
  ...FINAL,
  4400: { why: gettext("The server did not understand this page."), link: gettext("Load it again"), to: reload },
  4403: { why: gettext("You may read this document, not change it."), link: gettext("Load it again"), to: reload },
  4404: { why: gettext("This document is gone, or no longer shared with you."), link: gettext("All documents"), to: () => "/documents/" },
  4410: { why: gettext("What you may do here has changed."), link: gettext("Go on"), to: reload },
  4413: { why: gettext("This is too large. What you wrote last is only on this page: copy it."), link: gettext("Load what is kept"), to: reload },
};

export function connect(number, doc, awareness) {
  const server = location.origin.replace("http", "ws");
  const provider = new WebsocketProvider(`${server}/ws/documents`, number, doc, {
    awareness,
    // Between tabs of a browser, too, everything goes by the server: it says who may write, and
    // who is who.
    disableBc: true,
    // By itself it comes back from any code that is not final. From this one it may, too: a
    // moment later, and with everything in one message.
    shouldReconnect: ({ code }) => code === TOO_MANY || code < 4400 || code > 4499,
  });
  // What it hears of the cursors of others it would tell the server, too: with ten people, ten
  // messages for each key of one of them. The server hears of each from themselves.
  const own = awareness.clientID;
  const tell = provider._awarenessUpdateHandler;
  awareness.off("update", tell);
  provider._awarenessUpdateHandler = (changes, origin) => {
    if (Object.values(changes).flat().includes(own)) {
      tell({ added: [], updated: [own], removed: [] }, origin);
    }
  };
  awareness.on("update", provider._awarenessUpdateHandler);
  return provider;
}

// Has what `showConnection` of live.js shows: states "connecting", "open", "waiting", "stopped".
export class Connection extends EventTarget {
  final = REASONS;
  code = null;
  #provider;

  constructor(provider) {
    super();
    this.#provider = provider;
    provider.on("status", () => this.#tell());
    provider.on("sync", () => this.#tell());
    provider.on("closed", ({ code }) => {
      this.code = code;
      this.#tell();
    });
    addEventListener("online", () => this.now());
  }

  get state() {
    if (this.code) return "stopped";
    if (this.#provider.synced) return "open";
    return this.#provider.ws ? "connecting" : "waiting";
  }

  get reason() {
    return (REASONS[this.code] ?? REASONS[4400]).why;
  }

  now() {
    if (this.state === "waiting") this.#provider.connect();
  }

  // What the server doesn't allow it says by a message of the y-protocols.
  onDenied(show) {
    const readAsItDoes = this.#provider.messageHandlers[AUTH];
    this.#provider.messageHandlers[AUTH] = (...all) => {
      readAsItDoes(...all);
      show();
    };
  }

  #tell() {
    this.dispatchEvent(new Event("state"));
  }
}
