// The lists of rooms on a page (the sidebar's links, the cards), and what is unread in each.

import { fill, render } from "../../live/template.js";

export class Rooms {
  #you;

  constructor(you) {
    this.#you = you;
  }

  // Something was said in a room.
  activity({ room, number, author, text }) {
    for (const element of elementsOf(room)) {
      fill(element, { author: author.name, text });
      // Who writes has read.
      if (author.id === this.#you) this.#read(element, number);
      element.dataset.number = Math.max(number, Number(element.dataset.number));
      this.#show(element);
    }
  }

  // The reader has read, here or in another tab.
  read({ room, number }) {
    for (const element of elementsOf(room)) {
      this.#read(element, number);
      this.#show(element);
    }
  }

  // A room has been opened.
  open(room) {
    for (const list of document.querySelectorAll("[data-room-list]")) {
      if (elementsOf(room.slug).some((element) => list.contains(element))) continue;
      const kind = list.dataset.roomList;
      const element = render(`room-${kind}`, { name: room.name, topic: room.topic });
      element.dataset.room = room.slug;
      element.dataset.number = element.dataset.read = room.number;
      element.querySelector("a").href = room.url;
      const name = (each) => each.querySelector("[data-slot=name]").textContent;
      const after = [...list.children].find((each) => name(each).localeCompare(room.name) > 0);
      list.insertBefore(element, after ?? null);
    }
  }

  #read(element, number) {
    element.dataset.read = Math.max(number, Number(element.dataset.read));
  }

  #show(element) {
    const unread = Math.max(0, Number(element.dataset.number) - Number(element.dataset.read));
    element.querySelector(".badge").hidden = !unread;
    fill(element, { unread });
  }
}

function elementsOf(slug) {
  return [...document.querySelectorAll("[data-room-list] [data-room]")].filter(
    (element) => element.dataset.room === slug,
  );
}
