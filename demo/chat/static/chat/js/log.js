// The messages of a room on the page: in order, each once as it is now, and no gap unnoticed.

import { render } from "../../live/template.js";

const SAME_BREATH_MS = 5 * 60_000; // messages of one author this close stand together
const AT_BOTTOM_PX = 60;

const { gettext: _, interpolate } = window;

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });
const dayOfYear = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const fullDate = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });

export class MessageLog {
  // Every message from the first on the page up to this number is on the page.
  seen = 0;
  // Every change of the room up to this number has been told.
  change;

  #you;
  #ahead = new Set(); // changes after a gap
  #early = null; // while older messages are on their way: what was told of them meanwhile
  #frame = document.querySelector(".log");
  #list = document.querySelector(".messages");
  #byNumber = new Map();
  #pending = new Map(); // by client_id
  #newMark = null;
  #newAfter = 0;

  #onShow;

  // `onShow(element)` hears of each message that comes or changes.
  constructor(you, change, onShow) {
    this.#you = you;
    this.change = change;
    this.#onShow = onShow;
    for (const element of this.#list.querySelectorAll(".message")) {
      this.#adopt(element);
      this.seen = element.number;
    }
    this.#byNumber.forEach((element) => this.#arrange(element));
    this.toBottom();
    this.#holdBottom();
  }

  get first() {
    return this.#list.querySelector(".message:not(.pending)")?.number ?? null;
  }

  get isAtBottom() {
    const { scrollHeight, scrollTop, clientHeight } = this.#frame;
    return scrollHeight - scrollTop - clientHeight < AT_BOTTOM_PX;
  }

  onScroll(callback) {
    this.#frame.addEventListener("scroll", callback, { passive: true });
  }

  // Whoever reads the latest messages goes on doing so while the box below grows, or a keyboard
  // slides in.
  #holdBottom() {
    let wasAtBottom = true;
    this.onScroll(() => (wasAtBottom = this.isAtBottom));
    new ResizeObserver(() => wasAtBottom && this.toBottom()).observe(this.#frame);
  }

  toBottom() {
    this.#frame.scrollTop = this.#frame.scrollHeight;
  }

  // Note a change that was told. Returns false if one before it was not.
  noteChange(number) {
    if (number > this.change) this.#ahead.add(number);
    while (this.#ahead.delete(this.change + 1)) this.change += 1;
    return this.#ahead.size === 0;
  }

  // Everything up to this change has been told, by one answer.
  caughtUp(number, afresh) {
    this.change = afresh ? number : Math.max(number, this.change);
    for (const each of this.#ahead) {
      if (each <= this.change) this.#ahead.delete(each);
    }
    return this.noteChange(this.change);
  }

  // Older messages have been asked for, or won't come.
  expectOlder(expected) {
    this.#early = expected ? new Map() : null;
  }

  // How many messages of others came after `number`.
  unreadAfter(number) {
    let count = 0;
    for (const [each, element] of this.#byNumber) {
      if (each > number && element.author !== this.#you) count += 1;
    }
    return count;
  }

  // Put messages where they belong. One that is there already is shown as it is now; one of the
  // reader's own takes the place of its pending self.
  add(messages) {
    const wasAtBottom = this.isAtBottom;
    for (const message of messages) {
      const first = this.first;
      if (first !== null && message.number < first) {
        this.removePending(message);
        this.#early?.set(message.number, message);
      } else {
        this.#put(message);
      }
    }
    while (this.#byNumber.has(this.seen + 1)) this.seen += 1;
    if (wasAtBottom) this.toBottom();
  }

  // Older ones go on top, unannounced, and what the reader looks at stays where it is.
  addOlder(messages) {
    const { scrollHeight, scrollTop } = this.#frame;
    const newAfter = this.#newMark ? this.#newAfter : null;
    this.#frame.setAttribute("aria-live", "off");
    this.clearNewMark();
    for (const message of messages) {
      const told = this.#early?.get(message.number);
      this.#put(told?.change > message.change ? told : message);
    }
    this.#early = null;
    if (newAfter !== null) this.markNewAfter(newAfter);
    this.#frame.scrollTop = scrollTop + this.#frame.scrollHeight - scrollHeight;
    setTimeout(() => this.#frame.removeAttribute("aria-live"), 100);
  }

  // Forget what is there (but not what is pending), and begin with these.
  restart(messages) {
    this.clearNewMark();
    for (const element of this.#byNumber.values()) this.#remove(element);
    this.#byNumber.clear();
    this.seen = messages.length ? messages[0].number - 1 : 0;
    this.add(messages);
    this.toBottom();
  }

  // Show a message of the reader's own that the server doesn't have yet.
  addPending(item, author) {
    const element = this.#make({ ...item, author });
    element.classList.add("pending");
    this.#pending.set(item.client_id, element);
    this.#list.append(element);
    this.#arrange(element);
    this.toBottom();
  }

  removePending({ client_id }) {
    const element = this.#pending.get(client_id);
    if (!element) return;
    this.#pending.delete(client_id);
    this.#remove(element);
  }

  // Say under a pending message what it waits for.
  note({ client_id }, text) {
    const note = this.#pending.get(client_id)?.querySelector(".note");
    if (!note || note.textContent === text) return;
    const wasAtBottom = this.isAtBottom;
    note.textContent = text;
    note.hidden = !text;
    if (wasAtBottom) this.toBottom();
  }

  // Draw the line above the first message of others after `number`.
  markNewAfter(number) {
    if (this.#newMark && this.#newAfter === number) return;
    const first = this.#messages().find((each) => each.number > number && each.author !== this.#you);
    if (!first) return;
    this.clearNewMark();
    this.#newAfter = number;
    this.#newMark = separator("new-mark", _("New"));
    first.before(this.#newMark);
    this.#arrange(first);
  }

  clearNewMark() {
    if (!this.#newMark) return;
    const first = this.#messageAfter(this.#newMark);
    this.#newMark.remove();
    this.#newMark = null;
    this.#arrange(first);
  }

  // Go to the line, if the messages below it are more than the frame holds.
  showNewMark() {
    if (!this.#newMark) return;
    const above = this.#frame.getBoundingClientRect().top - this.#newMark.getBoundingClientRect().top;
    if (above > 0) this.#frame.scrollTop -= above + 24;
  }

  // The message with this number, if it is on the page.
  get(number) {
    return this.#byNumber.get(number);
  }

  #put(message) {
    const known = this.#byNumber.get(message.number);
    if (known) {
      if (message.change > known.change) this.#show(known, message);
      return;
    }
    const own = message.author.id === this.#you;
    const pending = own ? this.#pending.get(message.client_id) : undefined;
    const [firstPending] = this.#pending.values();
    const following = this.#firstAfter(message.number);
    const element = pending ?? this.#make(message);
    if (pending) {
      this.note(message, "");
      this.#pending.delete(message.client_id);
      pending.classList.remove("pending");
    }
    element.dataset.number = message.number;
    element.querySelector("time").dateTime = message.sent_at;
    this.#show(element, message);
    this.#adopt(element);
    // The first of the pending ones stands where it belongs; moved, it would be read out again.
    if (!pending || following || pending !== firstPending) {
      const follower = pending && this.#messageAfter(pending);
      const place = following ?? (pending === firstPending ? null : firstPending) ?? null;
      this.#list.insertBefore(element, place?.separator ?? place);
      this.#arrange(follower);
    }
    this.#arrange(element);
    this.#arrange(this.#messageAfter(element));
  }

  #make(message) {
    const { author, sent_at } = message;
    const element = render("message", { initials: author.initials, name: author.name });
    element.querySelector(".avatar").dataset.color = author.color;
    element.querySelector("time").dateTime = sent_at;
    element.dataset.author = author.id;
    element.author = author.id;
    element.at = new Date(sent_at);
    element.classList.add("fresh");
    this.#show(element, message);
    return element;
  }

  // Show what a message says now. A pending one has neither been changed nor an image.
  #show(element, { author, text, change = 0, image = null, edited = false, deleted = null }) {
    const part = (name) => element.querySelector(`.${name}`);
    element.dataset.change = element.change = change;
    element.classList.toggle("gone", deleted !== null);
    part("text").textContent = text;
    part("text").hidden = !text;
    part("tombstone").hidden = deleted === null;
    part("tombstone").textContent = deleted === "staff" ? _("Deleted by staff") : _("Message deleted");
    part("edited").hidden = !edited || deleted !== null;
    const picture = part("picture");
    picture.hidden = image === null;
    if (image === null) {
      picture.removeAttribute("href");
      picture.replaceChildren();
    } else if (picture.getAttribute("href") !== image.url) {
      const shown = new Image(image.width, image.height);
      shown.alt = interpolate(_("Image from %s"), [author.name]);
      picture.href = shown.src = image.url;
      picture.replaceChildren(shown);
    }
    if (element.number) this.#onShow(element);
  }

  // Read once what is needed often, from an element with a number.
  #adopt(element) {
    element.number = Number(element.dataset.number);
    element.author = Number(element.dataset.author);
    element.change = Number(element.dataset.change);
    element.at = new Date(element.querySelector("time").dateTime);
    this.#byNumber.set(element.number, element);
    this.#onShow(element);
  }

  #remove(element) {
    const follower = this.#messageAfter(element);
    element.separator?.remove();
    element.remove();
    this.#arrange(follower);
  }

  #messages() {
    return [...this.#list.querySelectorAll(".message:not(.pending)")];
  }

  #firstAfter(number) {
    let found = null;
    // From the end, where nearly every message goes.
    for (let each = this.#list.lastElementChild; each; each = each.previousElementSibling) {
      if (!each.number) continue;
      if (each.number < number) break;
      found = each;
    }
    return found;
  }

  #messageBefore(element) {
    do element = element.previousElementSibling;
    while (element && !element.at);
    return element;
  }

  #messageAfter(element) {
    do element = element.nextElementSibling;
    while (element && !element.at);
    return element;
  }

  // Set what depends on the message before: the day's line, and whether the author goes on.
  #arrange(element) {
    if (!element) return;
    const before = this.#messageBefore(element);
    const isNewDay = !before || before.at.toDateString() !== element.at.toDateString();
    if (!isNewDay) {
      element.separator?.remove();
      element.separator = null;
    } else if (!element.separator || element.separator.nextElementSibling !== element) {
      element.separator?.remove();
      element.separator = separator("day", dayName(element.at));
      element.before(element.separator);
    }
    const goesOn =
      !isNewDay &&
      before.author === element.author &&
      element.at - before.at < SAME_BREATH_MS &&
      element.previousElementSibling !== this.#newMark;
    element.classList.toggle("continued", goesOn);
    element.classList.toggle("own", element.author === this.#you);
    const time = element.querySelector("time");
    time.textContent = clock.format(element.at);
    time.title = exact.format(element.at);
  }
}

function separator(name, text) {
  const item = document.createElement("li");
  const label = document.createElement("span");
  item.className = name;
  label.textContent = text;
  item.append(label);
  return item;
}

function dayName(date) {
  const days = Math.round((startOfDay(new Date()) - startOfDay(date)) / 86_400_000);
  if (days === 0) return _("Today");
  if (days === 1) return _("Yesterday");
  return (days > 1 && days < 300 ? dayOfYear : fullDate).format(date);
}

function startOfDay(date) {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate());
}
