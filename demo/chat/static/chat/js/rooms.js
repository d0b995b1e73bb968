// The lists of rooms on a page (the sidebar's links, the cards), and what is unread in each.

import { fill, render } from "../../live/template.js";

const { gettext: _ } = window;

export class Rooms {
  #you;

  constructor(you) {
    this.#you = you;
  }

  // Everything as the server has it, for a page that comes back: numbers only go up, so what was
  // told in between stays.
  all(rooms) {
    for (const room of rooms) {
      this.open(room);
      this.read({ room: room.slug, number: room.read });
      if (room.latest) this.activity({ room: room.slug, ...room.latest });
    }
  }

  // Something was said in a room, or its last message was changed.
  activity({ room, number, change, author, text, image, deleted }) {
    for (const element of elementsOf(room)) {
      if (change >= Number(element.dataset.change ?? 0)) {
        element.dataset.change = change;
        const words = deleted ? _("Message deleted") : text || (image ? _("An image") : "");
        fill(element, { author: author.name, text: words });
      }
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

  // A room has been opened, or closed.
  open(room) {
    for (const list of document.querySelectorAll("[data-room-list]")) {
      if (list.dataset.private !== String(room.private)) continue;
      const element = elementsOf(room.slug).find((each) => list.contains(each)) ?? this.#add(list, room);
      // Told late, it is not what it is like now.
      if (room.change < Number(element.dataset.state ?? 0)) continue;
      element.dataset.state = room.change;
      element.querySelector(".closed-mark").hidden = !room.closed;
    }
  }

  #add(list, room) {
    const kind = list.dataset.roomList;
    const element = render(`room-${kind}`, { name: room.name, topic: room.topic });
    element.dataset.room = room.slug;
    element.dataset.number = element.dataset.read = room.number;
    if (room.read !== undefined) element.dataset.read = room.read;
    element.dataset.change = 0;
    element.querySelector("a").href = room.url;
    const name = (each) => each.querySelector("[data-slot=name]").textContent;
    const after = [...list.children].find((each) => name(each).localeCompare(room.name) > 0);
    list.insertBefore(element, after ?? null);
    this.#show(element);
    return element;
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
