// What may be done with a message: its author edits and deletes it, staff delete it and mute its
// author. The server decides; the page shows only what it would allow.

import { render } from "../../live/template.js";
import { NO_CONNECTION, lengthOf, tooLongBy, wordsFor } from "./refusals.js";

const { gettext: _ } = window;

export class MessageActions {
  #you;
  #moderator;
  #limit;
  #send;
  #complain;
  #log = document.querySelector(".log");
  #deleteDialog = document.querySelector("#delete-dialog");
  #muteDialog = document.querySelector("#mute-dialog");

  // `send(command)` returns false if there is no connection; `complain(text)` tells the reader.
  constructor({ you, moderator, limit, send, complain }) {
    this.#you = you;
    this.#moderator = moderator;
    this.#limit = limit;
    this.#send = send;
    this.#complain = complain;
    const does = {
      edit: (element) => this.#edit(element),
      delete: (element) => this.#delete(element),
      mute: (element) => this.#mute(element),
    };
    this.#log.addEventListener("click", ({ target }) => {
      const button = target.closest("[data-do]");
      if (!button) return;
      button.closest("details").open = false;
      does[button.dataset.do](button.closest(".message"));
    });
    this.#log.addEventListener("toggle", ({ target }) => this.#placeMenu(target), true);
    document.addEventListener("click", ({ target }) => {
      for (const menu of this.#openMenus()) {
        if (!menu.contains(target)) menu.open = false;
      }
    });
    this.#log.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      for (const menu of this.#openMenus()) {
        menu.open = false;
        menu.firstElementChild.focus();
      }
    });
  }

  // A message has come, or it says something else now.
  show(element) {
    const own = element.author === this.#you;
    const gone = element.classList.contains("gone");
    const form = element.querySelector("form.edit");
    if (form && (gone || form.sent === textOf(element))) this.#endEdit(element);
    let menu = element.querySelector(".menu");
    if (gone || !(own || this.#moderator)) {
      if (menu?.contains(document.activeElement)) this.#log.focus({ preventScroll: true });
      menu?.remove();
      return;
    }
    if (!menu) {
      menu = render("message-menu", {});
      element.querySelector(".bubble").append(menu);
    }
    menu.querySelector("[data-do=edit]").hidden = !own;
    menu.querySelector("[data-do=mute]").hidden = own;
  }

  // The server refused to change a message.
  refused(element, refusal) {
    const form = element?.querySelector("form.edit");
    if (!form) return false;
    this.#waitNoMore(form);
    this.#problem(form, wordsFor(refusal));
    return true;
  }

  // What was sent may not have arrived: it may be sent again.
  disconnected() {
    for (const form of this.#log.querySelectorAll("form.edit")) this.#waitNoMore(form);
  }

  #openMenus() {
    return this.#log.querySelectorAll(".menu[open]");
  }

  // Where there is room for it: above, or in the upper half below; away from the message, or over it.
  #placeMenu(menu) {
    if (!menu.open) return;
    const frame = this.#log.getBoundingClientRect();
    menu.classList.toggle("down", menu.getBoundingClientRect().top < frame.top + frame.height / 2);
    menu.classList.remove("inward");
    const { left, right } = menu.lastElementChild.getBoundingClientRect();
    menu.classList.toggle("inward", left < frame.left || right > frame.right);
  }

  #edit(element) {
    if (element.querySelector("form.edit")) return;
    const form = render("edit", {});
    const box = form.querySelector("textarea");
    box.value = textOf(element);
    element.classList.add("editing");
    element.querySelector(".bubble").after(form);
    form.scrollIntoView({ block: "nearest" });
    box.focus();
    box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        this.#endEdit(element);
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    box.addEventListener("input", () => this.#problem(form, ""));
    form.querySelector("[data-cancel]").addEventListener("click", () => this.#endEdit(element));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save(element, form, box.value.trim());
    });
  }

  #save(element, form, text) {
    const over = lengthOf(text) - this.#limit;
    if (text === textOf(element)) {
      this.#endEdit(element);
    } else if (!text && element.querySelector(".picture").hidden) {
      this.#problem(form, _("Write something first."));
    } else if (over > 0) {
      this.#problem(form, tooLongBy(over));
    } else if (this.#send({ type: "edit", number: element.number, text })) {
      form.sent = text;
      form.querySelector("[type=submit]").disabled = true;
    } else {
      this.#problem(form, NO_CONNECTION);
    }
  }

  #problem(form, text) {
    form.querySelector(".composer-error").textContent = text;
    form.querySelector("textarea").setAttribute("aria-invalid", String(text !== ""));
  }

  #waitNoMore(form) {
    form.sent = undefined;
    form.querySelector("[type=submit]").disabled = false;
  }

  #endEdit(element) {
    const form = element.querySelector("form.edit");
    const hadFocus = form.contains(document.activeElement);
    form.remove();
    element.classList.remove("editing");
    if (hadFocus) element.querySelector(".menu summary")?.focus();
  }

  async #delete(element) {
    const answer = await ask(this.#deleteDialog);
    if (answer) this.#order({ type: "delete", number: element.number });
    element.querySelector(".menu summary")?.focus();
  }

  async #mute(element) {
    const name = element.querySelector("[data-slot=name]").textContent;
    this.#muteDialog.querySelector("[data-slot=name]").textContent = name;
    const answer = await ask(this.#muteDialog);
    const minutes = Number(this.#muteDialog.querySelector("select").value);
    if (answer) this.#order({ type: "mute", user: element.author, minutes });
    element.querySelector(".menu summary")?.focus();
  }

  #order(command) {
    if (!this.#send(command)) this.#complain(NO_CONNECTION);
  }
}

function textOf(element) {
  return element.querySelector(".text").textContent;
}

// Open a dialog, and return the value of the button that closed it; "" by Escape.
function ask(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}
