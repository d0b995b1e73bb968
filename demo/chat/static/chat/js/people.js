// Who is in the room, and who is typing.

import { render } from "../../live/template.js";

const { gettext: _, interpolate, ngettext } = window;

const GOODBYE_MS = 3_000; // a reload is no departure
const TYPING_MS = 6_000; // if its end is never told

export class People {
  #you;
  #list = document.querySelector(".people-list");
  #counts = document.querySelectorAll("[data-people-count]");
  #typingLine = document.querySelector(".typing");
  #elements = new Map(); // by user id
  #revisions = new Map();
  #typing = new Map(); // user id -> { name, timer }
  #muted = new Map(); // user id -> timer of the end

  constructor(you) {
    this.#you = you;
  }

  // Begin with those who are there at `revision`. What is told of an earlier one is known already.
  start(people, revision) {
    this.#revisions.clear();
    this.revision = revision;
    for (const id of [...this.#elements.keys()]) this.#remove(id);
    for (const person of people) this.#show(person);
  }

  change({ user, here, revision }) {
    if (revision <= (this.#revisions.get(user.id) ?? this.revision ?? 0)) return;
    this.#revisions.set(user.id, revision);
    if (here) {
      this.#show(user);
      return;
    }
    this.stopTyping(user.id);
    const element = this.#elements.get(user.id);
    if (!element) return;
    element.classList.add("leaving");
    element.goodbye = setTimeout(() => this.#remove(user.id), GOODBYE_MS);
  }

  typing({ user, typing }) {
    if (user.id === this.#you) return;
    this.stopTyping(user.id);
    if (typing) {
      const timer = setTimeout(() => this.stopTyping(user.id), TYPING_MS);
      this.#typing.set(user.id, { name: user.name, timer });
    }
    this.#showTyping();
  }

  stopTyping(id) {
    clearTimeout(this.#typing.get(id)?.timer);
    if (this.#typing.delete(id)) this.#showTyping();
  }

  // Begin with those who are muted, and for how long yet.
  startMutes(mutes) {
    for (const id of [...this.#muted.keys()]) this.mute(id, 0);
    for (const { user, seconds } of mutes) this.mute(user, seconds);
  }

  mute(id, seconds) {
    clearTimeout(this.#muted.get(id));
    this.#muted.delete(id);
    if (seconds > 0) {
      // Timers hold 24.8 days; nobody is muted for so long.
      this.#muted.set(id, setTimeout(() => this.mute(id, 0), seconds * 1000));
      this.stopTyping(id);
    }
    this.#showMute(id);
  }

  #showMute(id) {
    const mark = this.#elements.get(id)?.querySelector(".muted-mark");
    if (mark) mark.hidden = !this.#muted.has(id);
  }

  #show(person) {
    const known = this.#elements.get(person.id);
    if (known) {
      clearTimeout(known.goodbye);
      known.classList.remove("leaving");
      return;
    }
    const element = render("person", { initials: person.initials, name: person.name });
    element.querySelector(".avatar").dataset.color = person.color;
    element.querySelector("[data-slot=you]").hidden = person.id !== this.#you;
    const form = element.querySelector("form");
    form.action = form.getAttribute("action").replace("/0/", `/${person.id}/`);
    form.hidden = person.id === this.#you;
    element.name = person.name;
    this.#elements.set(person.id, element);
    this.#showMute(person.id);
    const after = [...this.#list.children].find((each) => each.name.localeCompare(person.name) > 0);
    this.#list.insertBefore(element, after ?? null);
    this.#showCount();
  }

  #remove(id) {
    clearTimeout(this.#elements.get(id).goodbye);
    this.#elements.get(id).remove();
    this.#elements.delete(id);
    this.#showCount();
  }

  #showCount() {
    for (const count of this.#counts) count.textContent = this.#elements.size;
  }

  #showTyping() {
    const names = [...this.#typing.values()].map(({ name }) => name);
    const who = names.length > 2 ? _("Several people") : names.join(_(" and "));
    const format = ngettext("%s is typing…", "%s are typing…", names.length);
    this.#typingLine.textContent = who && interpolate(format, [who]);
  }
}
