// The page of one room: ties the connection, the log, the people and the box for writing together.

import { GONE, Live, SOMEBODY_ELSE, showConnection } from "../../live/live.js";
import { MessageActions } from "./actions.js";
import { Attachment } from "./attachment.js";
import { MessageLog } from "./log.js";
import { Outbox, readJson, writeJson } from "./outbox.js";
import { People } from "./people.js";
import { NO_CONNECTION, lengthOf, tooLongBy, wordsFor } from "./refusals.js";
import { Rooms } from "./rooms.js";

const { gettext: _, interpolate, ngettext } = window;

const page = document.querySelector("main.room").dataset;
const you = { id: Number(page.you), name: page.name, initials: page.initials, color: page.color };
const limit = Number(page.limit);
const keyOf = (thing) => `${thing}/${you.id}/${page.room}`;

const form = document.querySelector(".composer");
const box = form.querySelector("textarea");
const problem = form.querySelector(".composer-error");

const live = new Live(() => `/ws/rooms/${page.room}/?seen=${log.change}`, {
  [GONE]: { why: _("This room is gone."), link: _("All rooms"), to: () => "/chat/" },
});
const actions = new MessageActions({
  you: you.id,
  moderator: page.moderator === "true",
  limit,
  send: (command) => live.send(command),
  complain,
});
const log = new MessageLog(you.id, Number(page.change), (element) => actions.show(element));
const people = new People(you.id);
const rooms = new Rooms(you.id);
const outbox = new Outbox(keyOf("outbox"), {
  transmit: ({ client_id, text }) => live.send({ type: "message", client_id, text }),
  onSilence: () => live.renew(),
});
const attachment = new Attachment({
  url: page.upload,
  limit: Number(page.imageLimit),
  complain,
  box,
  drop: document.querySelector("main.room"),
});

// --- What the server says ---

let caughtUp = false;
let asking = false;
let silenceAt = 0; // the newest change of who may write, since this connection began

const told = {
  welcome(event) {
    if (event.you.id !== you.id) {
      // Another tab changed the log-in. What was written here is not theirs to send.
      live.stop(SOMEBODY_ELSE);
      return;
    }
    rooms.all(event.rooms);
    people.start(event.people, event.revision);
    caughtUp = true;
    read = Math.max(read, event.read);
    catchUp(event);
    tellRead();
    outbox.resume();
  },

  changes(event) {
    asking = false;
    catchUp(event);
  },

  message({ message }) {
    people.stopTyping(message.author.id);
    showMessage(message);
  },

  changed: ({ message }) => showMessage(message),

  muted({ change, user, seconds }) {
    if (isNewest(change)) mute(user.id, seconds);
    noteChange(change);
  },

  closed({ change, closed }) {
    if (isNewest(change)) setClosed(closed);
    noteChange(change);
  },

  history({ messages }) {
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

  error(event) {
    const { code, client_id, retry_after_s, number } = event;
    older.disabled = false;
    if (client_id && retry_after_s) {
      outbox.retryLater(client_id, retry_after_s);
      log.note({ client_id }, `${wordsFor(event)} ${_("Trying again in a moment…")}`);
      return;
    }
    if (number !== undefined && actions.refused(log.get(number), event)) return;
    const refused = client_id && outbox.take(client_id);
    if (refused) {
      // Back to where it was written: nothing is lost.
      log.removePending(refused);
      box.value = [refused.text, box.value].filter(Boolean).join("\n");
      boxChanged();
    }
    if (refused || !["rate", "muted", "closed"].includes(code)) complain(wordsFor(event));
  },
};

// What came or changed while nobody told us; and whatever else there is of the room, as it is now.
function catchUp({ change, afresh, messages, closed, mutes }) {
  if (afresh) log.restart(messages);
  else log.add(messages);
  showBeginning();
  for (const { author, client_id } of messages) {
    if (author.id === you.id) outbox.take(client_id);
  }
  const isWhole = log.caughtUp(change, afresh);
  if (isNewest(change)) {
    setClosed(closed);
    mutedUntil = 0;
    people.startMutes(mutes);
    for (const { user, seconds } of mutes) mute(user, seconds);
    showSilence();
    if (!isWhole) askForChanges();
  }
  noticeNew();
  notePending();
}

function showMessage(message) {
  if (message.author.id === you.id) outbox.take(message.client_id);
  log.add([message]);
  noteChange(message.change);
  noticeNew();
  notePending();
}

// A number is missing in between: it happened while nobody told us.
function noteChange(number) {
  if (!log.noteChange(number)) askForChanges();
}

// What is told of who may write may be overtaken by what happened later. Then it is asked for, as it
// is by then.
function isNewest(change) {
  if (change < silenceAt) {
    askForChanges();
    return false;
  }
  silenceAt = change;
  return true;
}

function askForChanges() {
  if (caughtUp && !asking) asking = live.send({ type: "changes", after: log.change });
}

live.addEventListener("message", ({ detail }) => told[detail.type]?.(detail));
live.addEventListener("state", () => {
  if (!live.isOpen) {
    caughtUp = asking = false;
    silenceAt = 0;
    outbox.pause();
    older.disabled = false;
    log.expectOlder(false);
    actions.disconnected();
  }
  notePending();
});

function notePending() {
  for (const item of outbox.items) {
    if (live.state === "stopped") log.note(item, `${_("Not sent.")} ${live.reason}`);
    else log.note(item, live.isOpen ? _("Sending…") : _("Waiting for the connection…"));
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
  const words = unread
    ? interpolate(ngettext("%s new message", "%s new messages", unread), [unread])
    : _("Latest messages");
  toLatest.querySelector("[data-slot=count]").textContent = words;
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

// --- Older messages: they come when their button does into sight, or is pressed ---

const older = document.querySelector(".older");
const beginning = document.querySelector(".beginning");

const nearing = new IntersectionObserver(
  ([{ isIntersecting }]) => {
    if (isIntersecting && caughtUp && !older.disabled) askForOlder();
  },
  { root: document.querySelector(".log"), rootMargin: "200px 0px 0px 0px" },
);

function showBeginning() {
  older.hidden = (log.first ?? 1) === 1;
  beginning.hidden = !older.hidden;
  // It tells of changes only: whoever is still at the top is asked anew.
  nearing.unobserve(older);
  if (!older.hidden) nearing.observe(older);
}

function askForOlder() {
  older.disabled = live.send({ type: "history", before: log.first });
  if (older.disabled) log.expectOlder(true);
  return older.disabled;
}

older.addEventListener("click", () => {
  if (!askForOlder()) complain(NO_CONNECTION);
});

// --- Who may not write: in a room that is closed, or muted in it ---

const silence = form.querySelector(".silence");
const closeButton = document.querySelector(".close-room");
let isClosed = false;
let mutedUntil = 0;
let muteEnds = null;

function setClosed(closed) {
  isClosed = closed;
  if (closeButton) closeButton.dataset.closed = closed;
  showSilence();
}

function mute(id, seconds) {
  people.mute(id, seconds);
  if (id !== you.id) return;
  mutedUntil = Date.now() + seconds * 1000;
  clearTimeout(muteEnds);
  if (seconds) muteEnds = setTimeout(showSilence, seconds * 1000 + 50);
  showSilence();
}

function silenced() {
  if (isClosed) return _("This room is closed. What was said stays.");
  if (mutedUntil <= Date.now()) return "";
  const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
  return interpolate(_("You are muted here until %s."), [clock.format(mutedUntil)]);
}

function showSilence() {
  const why = silenced();
  if (silence.textContent !== why) silence.textContent = why; // else it is read out again
  silence.hidden = !why;
  box.readOnly = Boolean(why);
  form.classList.toggle("silenced", Boolean(why));
  attachment.disabled = Boolean(why);
  form.querySelector(".send").disabled = Boolean(why);
}

closeButton?.addEventListener("click", () => {
  if (!live.send({ type: "close", closed: !isClosed })) complain(NO_CONNECTION);
});

// --- Writing ---

const counter = form.querySelector("[data-counter]");
let typingTold = 0; // when, or 0 if nobody thinks that we type
let typingEnds = null;

function complain(text) {
  problem.textContent = text;
  if (text) box.setAttribute("aria-invalid", "true");
  else box.removeAttribute("aria-invalid");
}

function boxChanged() {
  complain("");
  const left = limit - lengthOf(box.value.trim());
  counter.textContent =
    left < 0
      ? interpolate(_("%s too many"), [-left])
      : left < 200
        ? interpolate(_("%s left"), [left])
        : "";
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
  if (silenced()) {
    complain(silenced());
  } else if (!text && !attachment.isThere) {
    complain(_("Write something first."));
  } else if (over > 0) {
    complain(tooLongBy(over));
  } else if (live.state === "stopped") {
    complain(`${_("Not sent.")} ${live.reason}`);
  } else if (attachment.isThere) {
    sayWithImage(text);
  } else {
    say(text);
  }
});

function say(text) {
  wrote();
  log.addPending(outbox.add(text), you);
  notePending();
}

async function sayWithImage(text) {
  if (attachment.isSending) return;
  // The text goes with the image, or stays with it.
  if ((await attachment.send(text)) && box.value.trim() === text) wrote();
}

function wrote() {
  typingTold = 0; // the message itself tells everyone that we don't any more
  clearTimeout(typingEnds);
  box.value = "";
  boxChanged();
  log.clearNewMark();
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
// What is new is looked at from its beginning, unless that isn't here.
if ((log.first ?? 1) <= read + 1) log.showNewMark();
showUnread();
showConnection(live);
live.connect();
if (matchMedia("(hover: hover)").matches) box.focus({ preventScroll: true });
