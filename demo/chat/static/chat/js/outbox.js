// What was written and is not known to be kept by the server.
//
// One message is under way at a time, so that they arrive in the order of writing even if one of
// them has to wait. A message leaves the outbox when the server has answered it by its client_id;
// until then it is sent again over each new connection, which the server recognises. The outbox
// outlives a reload of the page (sessionStorage: each tab has its own).

const ANSWER_WITHIN_MS = 8_000;

export class Outbox {
  #key;
  #items;
  #transmit;
  #onSilence;
  #ready = false;
  #underWay = null;
  #timer = null;

  // `transmit(item)` hands a message to the connection; `onSilence()` hears of no answer in time.
  constructor(key, { transmit, onSilence }) {
    this.#key = key;
    this.#transmit = transmit;
    this.#onSilence = onSilence;
    this.#items = readJson(key) ?? [];
  }

  get items() {
    return [...this.#items];
  }

  add(text) {
    const item = { client_id: randomId(), text, sent_at: new Date().toISOString() };
    this.#items.push(item);
    this.#keep();
    this.#advance();
    return item;
  }

  // The connection is up and has caught up with what it missed.
  resume() {
    this.#ready = true;
    this.#advance();
  }

  pause() {
    this.#ready = false;
    this.#underWay = null;
    clearTimeout(this.#timer);
  }

  // The server has answered, one way or the other. Returns the message if it was here.
  take(clientId) {
    const index = this.#items.findIndex((item) => item.client_id === clientId);
    if (index < 0) return null;
    const [item] = this.#items.splice(index, 1);
    this.#keep();
    if (this.#underWay === clientId) {
      this.#underWay = null;
      clearTimeout(this.#timer);
      this.#advance();
    }
    return item;
  }

  // The server asks for patience.
  retryLater(clientId, afterSeconds) {
    if (this.#underWay !== clientId) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#underWay = null;
      this.#advance();
    }, afterSeconds * 1000 + 50);
  }

  #advance() {
    if (!this.#ready || this.#underWay || !this.#items.length) return;
    const item = this.#items[0];
    if (!this.#transmit(item)) return;
    this.#underWay = item.client_id;
    this.#timer = setTimeout(this.#onSilence, ANSWER_WITHIN_MS);
  }

  #keep() {
    writeJson(this.#key, this.#items);
  }
}

export function readJson(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key));
  } catch {
    return null;
  }
}

export function writeJson(key, value) {
  try {
    sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Private windows may have no storage, or a full one: the page still holds what it has.
  }
}

// crypto.randomUUID() is there in secure contexts only, which http://192.168.0.7:8000 is not.
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
