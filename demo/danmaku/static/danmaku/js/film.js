// The page with the film.

import { Live, showConnection } from "../../live/live.js";
import { render } from "../../live/template.js";
import { Stage } from "./stage.js";

const _ = window.gettext;
const LISTED = 100;
const AGAIN_MS = 1_000;

const main = document.querySelector("main");
const video = main.querySelector("video");
const form = main.querySelector(".say");
const box = form.elements.text;
const complaint = form.querySelector("[role=alert]");
const notice = form.querySelector("[role=status]");
const list = main.querySelector(".said");
const crowd = main.querySelector("[data-crowd]");
const meters = Object.fromEntries([...main.querySelectorAll("[data-meter]")].map((each) => [each.dataset.meter, each]));

export const stage = new Stage(video, main.querySelector("canvas"), Number(main.dataset.film));
const live = new Live(() => "/ws/danmaku/");
const waiting = new Map(); // comments that the server has not answered, by their client_id
let you = null;
let arrived = 0;
let leftOut = 0;

// What the server says by a code, in the reader's language; other codes come with a text.
const REFUSALS = {
  empty: () => _("Write something first."),
  too_long: () => interpolate(_("A comment has at most %s characters."), [box.dataset.length]),
  forbidden_word: (error) => interpolate(_("“%s” is not wanted here. Your comment was not sent."), [error.word]),
  rate: () => _("You write faster than anyone can read. Wait a moment."),
  crowd_busy: () => _("The crowd is here already."),
};

function clock(ms) {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

const keyOf = (author, clientId) => `${author}/${clientId}`;

function take(comments) {
  const all = comments.map((comment) => ({
    ...comment,
    key: keyOf(comment.author.id, comment.client_id),
    at: comment.at_ms,
    own: comment.author.id === you,
  }));
  // As text, too: the newest first. The crowd would bury it.
  const fresh = stage.add(all).filter((comment) => !comment.passing);
  const items = fresh.map((comment) => {
    const item = render("comment", { time: clock(comment.at), name: comment.author.name, text: comment.text });
    item.dataset.key = comment.key;
    item.classList.toggle("own", comment.own);
    item.querySelector("button").addEventListener("click", () => {
      video.currentTime = comment.at / 1000;
    });
    return item;
  });
  list.prepend(...items.reverse());
  while (list.children.length > LISTED) list.lastElementChild.remove();
}

const told = {
  welcome(event) {
    const isFirst = you === null;
    you = event.you;
    take(event.comments);
    if (isFirst) {
      video.currentTime = event.at_ms / 1000; // where the others are
      if (!matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => {});
    }
    for (const comment of waiting.values()) live.send(comment);
  },
  comments(event) {
    arrived += event.comments.length + event.left_out;
    leftOut += event.left_out;
    if (you !== null) take(event.comments); // else the welcome has what is kept
  },
  gone(event) {
    const key = keyOf(event.author, event.client_id);
    stage.remove(key);
    [...list.children].find((item) => item.dataset.key === key)?.remove();
  },
  kept({ comment }) {
    waiting.delete(comment.client_id);
    take([comment]);
    notice.textContent = interpolate(_("Sent. It flies at %s."), [clock(comment.at_ms)]);
  },
  error(error) {
    const refused = waiting.get(error.client_id);
    if (refused && ["busy", "unavailable"].includes(error.code)) {
      setTimeout(() => waiting.has(refused.client_id) && live.send(refused), AGAIN_MS);
      return;
    }
    waiting.delete(error.client_id);
    notice.textContent = "";
    complaint.textContent = REFUSALS[error.code]?.(error) ?? error.text;
    if (refused && !box.value) box.value = refused.text; // to be put right
  },
};

live.addEventListener("message", ({ detail }) => told[detail.type]?.(detail));
showConnection(live);
live.connect();

form.addEventListener("submit", (event) => {
  event.preventDefault();
  complaint.textContent = notice.textContent = "";
  const text = box.value.trim();
  if (!text) {
    complaint.textContent = REFUSALS.empty();
    return;
  }
  const comment = { type: "comment", client_id: crypto.randomUUID(), text, at_ms: stage.time };
  waiting.set(comment.client_id, comment);
  box.value = "";
  if (!live.send(comment)) notice.textContent = _("Not connected: it will be sent as soon as possible.");
});

crowd.addEventListener("click", () => {
  complaint.textContent = "";
  live.send({ type: "crowd", at_ms: stage.time });
});

video.addEventListener("error", () => {
  complaint.textContent = _("Your browser can't show the film. The comments are there as text.");
});

setInterval(() => {
  meters.arrived.textContent = arrived;
  meters.left.textContent = leftOut;
  meters.frame.textContent = `${Math.round(stage.frameTime)}\u00a0ms`;
  arrived = leftOut = 0;
}, 1_000);
