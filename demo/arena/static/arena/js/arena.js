// The page of the pond: it says which way to swim, twenty times a second, and shows what it is told.

import { Live, LOGGED_OUT, showConnection } from "../../live/live.js";
import { Picture } from "./draw.js";
import { Others, Player } from "./player.js";
import { Steering } from "./steering.js";
import { readFrame, writeInput } from "./wire.js";

const _ = window.gettext ?? ((text) => text);
const fill = window.interpolate;

const SAY_EVERY_MS = 4000; // a reader can't follow each grain

const here = () => location.pathname;
const live = new Live(() => "/ws/arena/", {
  4400: { why: _("The page and the server don’t understand each other."), link: _("Reload the page"), to: here },
  4410: { why: _("You play in another window now."), link: _("Play here"), to: here },
  4429: { why: _("This page said too much at once."), link: _("Reload the page"), to: here },
});
const canvas = document.querySelector("#pond");
const list = document.querySelector("#scores");
const said = document.querySelector("#said");
const score = document.querySelector("#own-score");

let you = null;
let player = null;
let others = null;
let picture = null;
let steering = null;
let last = null; // the newest frame
let people = new Map();
let part = 0; // of a tick, since the last
let drawnAt = performance.now();

const told = {
  welcome(event) {
    you = event.you;
    if (player) {
      player.restart();
      others.clear();
      return;
    }
    player = new Player(event.rules);
    others = new Others(event.rules);
    picture = new Picture(canvas, event.rules);
    steering = new Steering(canvas, () => picture.place(own.x, own.y));
    canvas.dataset.ready = "";
  },
  scores(event) {
    if (last && event.reign < last.reign) return;
    const before = people;
    people = new Map(event.people.map((person) => [person.id, person]));
    showScores(event.people);
    if (before.size) announce(before);
  },
};

let own = { x: 0, y: 0, angle: 0 };

live.addEventListener("message", ({ detail }) => told[detail.type]?.(detail));
live.addEventListener("bytes", ({ detail }) => {
  const frame = readFrame(detail);
  // Of a reign that is over, or older than the newest: not for us.
  if (!frame || (last && (frame.reign < last.reign || (frame.reign === last.reign && frame.tick < last.tick)))) return;
  if (last && frame.reign > last.reign) others.clear();
  last = frame;
  player.reconcile(frame);
  others.add(frame, performance.now());
  if (score.textContent !== String(frame.score)) score.textContent = frame.score;
});
live.addEventListener("state", () => live.code === LOGGED_OUT && location.reload());

function turn(now) {
  requestAnimationFrame(turn);
  const elapsed = Math.min(250, now - drawnAt);
  drawnAt = now;
  if (!player?.ready) return;
  part += elapsed / others.tickMs;
  for (; part >= 1; part -= 1) {
    if (!live.isOpen) continue;
    const [dx, dy] = steering.direction();
    const number = player.push(dx, dy);
    if (number) live.sendBytes(writeInput(number, dx, dy));
  }
  own = player.at(part, elapsed);
  picture.draw(own, others.at(now), last.grains, people, you, now);
  canvas.dataset.x = Math.round(own.x);
  canvas.dataset.y = Math.round(own.y);
}

function showScores(ranked) {
  list.replaceChildren(
    ...ranked.map((person) => {
      const row = document.querySelector("#score").content.cloneNode(true);
      const item = row.querySelector("li");
      item.dataset.color = person.color;
      item.dataset.you = person.id === you;
      item.dataset.away = person.away;
      row.querySelector("[data-slot=name]").textContent = person.name;
      row.querySelector("[data-slot=away]").hidden = !person.away;
      row.querySelector("[data-slot=score]").textContent = person.score;
      return row;
    }),
  );
}

// What happens on the pond in words: who comes and goes at once, the score now and then.
let saidScore = 0;
let saidAt = 0;

function say(text) {
  said.textContent = text;
}

function announce(before) {
  for (const [id, person] of people) {
    if (id === you) continue;
    const known = before.get(id);
    if (!known || (known.away && !person.away)) say(fill(_("%s is on the pond."), [person.name]));
    else if (!known.away && person.away) say(fill(_("%s has dropped, and may come back."), [person.name]));
  }
  for (const [id, person] of before) {
    if (!people.has(id)) say(fill(_("%s has left the pond."), [person.name]));
  }
  const now = performance.now();
  const mine = people.get(you);
  if (!mine || mine.score === saidScore || now - saidAt < SAY_EVERY_MS) return;
  saidScore = mine.score;
  saidAt = now;
  const place = [...people.keys()].indexOf(you) + 1;
  say(fill(_("You have %(score)s. Place %(place)s of %(all)s."), { score: mine.score, place, all: people.size }, true));
}

// For who doesn't see the pond: where the next grain is.
const WINDS = [_("right"), _("below right"), _("below"), _("below left"), _("left"), _("above left"), _("above"), _("above right")];

document.querySelector("#where").addEventListener("click", () => {
  if (!last?.grains.length) {
    say(_("No grain in sight."));
    return;
  }
  const far = (grain) => Math.hypot(grain.x - own.x, grain.y - own.y);
  const next = last.grains.reduce((one, other) => (far(other) < far(one) ? other : one));
  const wind = Math.round(Math.atan2(next.y - own.y, next.x - own.x) / (Math.PI / 4) + 8) % 8;
  say(fill(_("The next grain: %(where)s, %(lengths)s duck lengths."), { where: WINDS[wind], lengths: Math.max(1, Math.round(far(next) / 36)) }, true));
});

showConnection(live);
live.connect();
requestAnimationFrame(turn);
