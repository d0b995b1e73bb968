// An image beside the text: chosen, pasted or dropped, and sent by a request of its own.
//
// It isn't kept for later as texts are. It stays in its place until the server has it, and sent
// again it bears the same client_id, so that it is not there twice.

import { randomId } from "./outbox.js";
import { NO_CONNECTION, wordsFor } from "./refusals.js";

const { gettext: _, interpolate } = window;
const TYPES = new Set(["image/png", "image/jpeg", "image/webp", "image/gif"]);

export class Attachment {
  #url;
  #limit;
  #complain;
  #file = null;
  #clientId = null;
  #row = document.querySelector(".attachment");
  #name = document.querySelector(".attachment [data-slot=file]");
  #input = document.querySelector(".attach input");
  isSending = false;

  // `complain(text)` tells what is wrong; `drop` is where an image may be dropped.
  constructor({ url, limit, complain, box, drop }) {
    this.#url = url;
    this.#limit = limit;
    this.#complain = complain;
    this.#input.addEventListener("change", () => {
      this.#take(this.#input.files);
      this.#input.value = "";
      box.focus();
    });
    this.#row.querySelector("button").addEventListener("click", () => {
      this.clear();
      box.focus();
    });
    box.addEventListener("paste", (event) => {
      if (this.#take(event.clipboardData.files)) event.preventDefault();
    });
    drop.addEventListener("dragover", (event) => {
      if (event.dataTransfer.types.includes("Files")) event.preventDefault();
    });
    drop.addEventListener("drop", (event) => {
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      this.#take(event.dataTransfer.files);
    });
  }

  get isThere() {
    return this.#file !== null;
  }

  set disabled(disabled) {
    this.#input.disabled = disabled;
  }

  clear() {
    this.#file = null;
    this.#row.hidden = true;
    this.#name.textContent = "";
  }

  // Send it with its text. Returns whether the server has it.
  async send(text) {
    const body = new FormData();
    body.append("client_id", this.#clientId);
    body.append("text", text);
    body.append("image", this.#file);
    const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
    this.isSending = true;
    this.#show(_("Sending…"));
    try {
      const headers = { "X-CSRFToken": token };
      const response = await fetch(this.#url, { method: "POST", headers, body });
      const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
      if (response.ok && isJson) {
        this.clear();
        return true;
      }
      // What is no answer of the view is the door, or the page that tells of a form too old.
      this.#complain(isJson ? wordsFor(await response.json()) : _("Not sent. Load this page anew."));
    } catch {
      this.#complain(NO_CONNECTION);
    } finally {
      this.isSending = false;
    }
    this.#show(size(this.#file));
    return false;
  }

  #take(files) {
    const [file] = files;
    if (!file || this.isSending || this.#input.disabled) return false;
    if (!TYPES.has(file.type)) {
      this.#complain(wordsFor({ code: "no_image" }));
    } else if (file.size > this.#limit) {
      this.#complain(interpolate(_("An image has at most %s MB."), [this.#limit / 1e6]));
    } else {
      this.#file = file;
      this.#clientId = randomId();
      this.#complain("");
      this.#show(size(file));
    }
    return true;
  }

  #show(what) {
    this.#row.hidden = false;
    this.#name.textContent = `${this.#file.name} · ${what}`;
  }
}

function size({ size }) {
  return size < 1e6 ? `${Math.ceil(size / 1e3)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}
