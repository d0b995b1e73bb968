// The page of one room: ties the connection, the log, the people and the box for writing together.

import { GONE, Live, SOMEBODY_ELSE, showConnection } from "../../live/live.js";
import { MessageLog } from "./log.js";
import { Outbox, readJson, writeJson } from "./outbox.js";
import { People } from "./people.js";
import { Rooms } from "./rooms.js";

const page = document.querySelector("main.room").dataset;
const you = { id: Number(page.you), name: page.name, initials: page.initials, color: page.color };
const limit = Number(page.limit);
const keyOf = (thing) => `${thing}/${you.id}/${page.room}`;

const log = new MessageLog(you.id);
const people = new People(you.id);
const rooms = new Rooms(you.id);
const live = new Live(() => `/ws/rooms/${page.room}/?seen=${log.seen}`, {
  [GONE]: { why: gettext("This room is gone."), link: gettext("All rooms"), to: () => "/chat/" },
});
const outbox = new Outbox(keyOf("outbox"), {
  transmit: ({ client_id, text }) => live.send({ type: "message", client_id, text }),
  onSilence: () => live.renew(),
});

// --- What the server says ---

let caughtUp = false;

const told = {
  welcome(event) {
    if (event.you.id !== you.id) {
      // Another tab changed the log-in. What was written here is not theirs to send.
      live.stop(SOMEBODY_ELSE);
      return;
    }
    if (event.afresh) {
      log.restart(event.messages);
      showBeginning();
    } else {
      log.add(event.messages);
    }
    for (const { author, client_id } of event.messages) {
      if (author.id === you.id) outbox.take(client_id);
    }
    people.start(event.people, event.revision);
    caughtUp = true;
    read = Math.max(read, event.read);
    noticeNew();
    tellRead();
    outbox.resume();
    notePending();
  },

  message({ message }) {
    people.stopTyping(message.author.id);
    if (message.author.id === you.id) outbox.take(message.client_id);
    log.add([message]);
    // A number is missing in between: it was said while nobody told us.
    if (caughtUp && message.number > log.seen) live.send({ type: "history", after: log.seen });
    noticeNew();
    notePending();
  },

  history({ before, messages }) {
    if (before === undefined) {
      log.add(messages);
      noticeNew();
      return;
    }
    log.addOlder(messages);
    older.disabled = false;
    showBeginning();
  },

  presence: (event) => people.change(event),
  typing: (event) => people.typing(event),
  activity: (event) => rooms.activity(event),
  room: (event) => rooms.open(event.room),

  read(event) {
    rooms.read(event);
    if (event.room !== page.room) return;
    read = Math.max(read, event.number);
    showUnread();
  },

  error({ code, text, client_id, retry_after_s }) {
    if (client_id && retry_after_s) {
      outbox.retryLater(client_id, retry_after_s);
      log.note({ client_id }, `${text} Trying again in a moment…`);
      return;
    }
    const refused = client_id && outbox.take(client_id);
    if (refused) {
      // Back to where it was written: nothing is lost.
      log.removePending(refused);
      box.value = [refused.text, box.value].filter(Boolean).join("\n");
      boxChanged();
    }
    if (refused || code !== "rate") complain(text);
  },
};

live.addEventListener("message", ({ detail }) => told[detail.type]?.(detail));
live.addEventListener("state", () => {
  if (!live.isOpen) {
    caughtUp = false;
    outbox.pause();
    older.disabled = false;
  }
  notePending();
});

function notePending() {
  for (const item of outbox.items) {
    if (live.state === "stopped") log.note(item, `Not sent. ${live.reason}`);
    else log.note(item, live.isOpen ? "Sending…" : "Waiting for the connection…");
  }
}

// --- What is new, and what has been read ---

const title = document.title;
const toLatest = document.querySelector(".to-latest");
let read = Number(page.read);
let toldRead = read;
let tellingRead = null;

const isReading = () => document.visibilityState === "visible" && log.isAtBottom;

function noticeNew() {
  if (!isReading()) log.markNewAfter(read);
  showUnread();
}

function showUnread() {
  if (isReading() && log.seen > read) {
    read = log.seen;
    tellingRead ??= setTimeout(tellRead, 300); // once for a burst of messages
  }
  const unread = log.unreadAfter(read);
  document.title = unread ? `(${unread}) ${title}` : title;
  toLatest.hidden = log.isAtBottom;
  toLatest.querySelector("[data-slot=count]").textContent =
    unread === 0 ? "Latest messages" : `${unread} new message${unread === 1 ? "" : "s"}`;
}

function tellRead() {
  tellingRead = null;
  if (read > toldRead && live.send({ type: "read", number: read })) toldRead = read;
}

log.onScroll(showUnread);
document.addEventListener("visibilitychange", showUnread);
toLatest.addEventListener("click", () => {
  log.toBottom();
  box.focus();
});

// --- Older messages ---

const older = document.querySelector(".older");
const beginning = document.querySelector(".beginning");

function showBeginning() {
  older.hidden = (log.first ?? 1) === 1;
  beginning.hidden = !older.hidden;
}

older.addEventListener("click", () => {
  older.disabled = live.send({ type: "history", before: log.first });
  if (!older.disabled) complain("There is no connection just now. Try again in a moment.");
});

// --- Writing ---

const form = document.querySelector(".composer");
const box = form.querySelector("textarea");
const problem = form.querySelector(".composer-error");
const counter = form.querySelector("[data-counter]");
let typingTold = 0; // when, or 0 if nobody thinks that we type
let typingEnds = null;

// As the server counts: characters, where JavaScript's length counts halves of some.
const lengthOf = (text) => [...text].length;

function complain(text) {
  problem.textContent = text;
  box.setAttribute("aria-invalid", "true");
}

function boxChanged() {
  problem.textContent = "";
  box.removeAttribute("aria-invalid");
  const left = limit - lengthOf(box.value.trim());
  counter.textContent = left < 0 ? `${-left} too many` : left < 200 ? `${left} left` : "";
  counter.classList.toggle("over", left < 0);
  writeJson(keyOf("draft"), box.value);
}

function tellTyping(typing) {
  clearTimeout(typingEnds);
  if (typing) {
    typingEnds = setTimeout(() => tellTyping(false), 4_000);
    if (Date.now() - typingTold < 2_500) return;
  } else if (!typingTold) {
    return;
  }
  typingTold = typing ? Date.now() : 0;
  live.send({ type: "typing", typing });
}

box.addEventListener("input", () => {
  boxChanged();
  tellTyping(box.value.trim() !== "");
});

box.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = box.value.trim();
  const over = lengthOf(text) - limit;
  box.focus();
  if (!text) {
    complain("Write something first.");
  } else if (over > 0) {
    complain(`Too long by ${over} character${over === 1 ? "" : "s"}. Please shorten it.`);
  } else if (live.state === "stopped") {
    complain(`Not sent. ${live.reason}`);
  } else {
    say(text);
  }
});

function say(text) {
  typingTold = 0; // the message itself tells everyone that we don't any more
  clearTimeout(typingEnds);
  box.value = "";
  boxChanged();
  log.clearNewMark();
  log.addPending(outbox.add(text), you);
  notePending();
}

// --- The people, on a small screen ---

const panel = document.querySelector(".people");
const toggle = document.querySelector(".people-toggle");

function showPanel(open) {
  panel.classList.toggle("open", open);
  toggle.setAttribute("aria-expanded", String(open));
  (open ? panel.querySelector(".people-close") : toggle).focus();
}

toggle.addEventListener("click", () => showPanel(!panel.classList.contains("open")));
panel.querySelector(".people-close").addEventListener("click", () => showPanel(false));
document.addEventListener("click", (event) => {
  if (!panel.classList.contains("open") || event.target.closest(".people, .people-toggle")) return;
  showPanel(false);
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && panel.classList.contains("open")) showPanel(false);
});

// --- Begin ---

box.value = box.value || (readJson(keyOf("draft")) ?? "");
boxChanged();
for (const item of outbox.items) log.addPending(item, you);
log.markNewAfter(read);
log.showNewMark();
showUnread();
showConnection(live);
live.connect();
if (matchMedia("(hover: hover)").matches) box.focus({ preventScroll: true });
