// The page of quotes: ties the connection, the table, the charts and the alerts together.

import { Live, SOMEBODY_ELSE, showConnection } from "../../live/live.js";
import { fill, render } from "../../live/template.js";
import { Board, showCount } from "./board.js";
import { Charts } from "./charts.js";
import { Sequence } from "./sequence.js";

const page = document.querySelector("main.quotes");
const live = new Live(() => "/ws/quotes/");
const sequence = new Sequence();
const board = new Board(page.querySelector(".board"), {
  look,
  watch: (instrument, watching) => say({ type: "watch", instrument, watching }),
});
const charts = new Charts(page.querySelector(".candles"), page.querySelector(".depth"));
const TERM = 1e9; // of a sequence number: who made the market, and how far it was

// --- What the server says ---

let lose = false; // the next message, as if it had got lost
let tradesBefore = null;
const counted = { messages: 0, quotes: 0 };

// What a reader can do something about is said in their language.
const REFUSED = {
  rate: gettext("Too much at once. Try again in a moment."),
  too_many: gettext("You wait for as many prices as can be. Forget one first."),
};

const told = {
  welcome({ you, watching, alerts }) {
    if (String(you) !== page.dataset.you) {
      live.stop(SOMEBODY_ELSE);
      return;
    }
    live.send({ type: "rate", per_second: rate() });
    board.watched(watching);
    alertList.replaceChildren();
    for (const each of alerts.toReversed()) showAlert(each);
    look(current ?? board.firstShown ?? board.get(Number(firstRow?.dataset.id)));
  },

  snapshot(event) {
    sequence.snapshot(event);
    take(event);
  },

  delta(event) {
    if (lose) {
      lose = false;
      loseButton.disabled = false;
      return;
    }
    const verdict = sequence.delta(event);
    if (verdict === "ask") live.send({ type: "snapshot" });
    if (verdict === "apply") take(event);
  },

  candles({ instrument, candles, detail }) {
    if (instrument !== current?.id) return; // the reader has gone on to another
    charts.show(current, candles, detail);
  },

  watching({ instrument, watching }) {
    board.get(instrument).isWatched = watching;
    board.filter();
  },

  alert: ({ alert }) => showAlert(alert),
  forgotten: ({ alert }) => alertList.querySelector(`[data-id="${alert}"]`)?.remove(),
  error: ({ code, text }) => complain(REFUSED[code] ?? text),
};

function take({ seq, trades, quotes, detail }) {
  board.quotes(quotes);
  if (detail) charts.update(detail);
  showPrice();
  // Whoever takes the market over begins to count anew.
  if (tradesBefore === null || trades < tradesBefore) tradesBefore = trades;
  counted.messages += 1;
  counted.quotes += quotes.length;
  figure("trades", showCount(trades - tradesBefore));
  figure("messages", showCount(counted.messages));
  figure("quotes", showCount(counted.quotes));
  figure("seq", `${Math.floor(seq / TERM)} · ${showCount(seq % TERM)}`);
  figure("gaps", showCount(sequence.healed));
}

const figures = Object.fromEntries(
  [...page.querySelectorAll("[data-figure]")].map((node) => [node.dataset.figure, node]),
);
function figure(name, text) {
  figures[name].textContent = text;
}

live.addEventListener("message", ({ detail }) => told[detail.type]?.(detail));
live.addEventListener("state", () => {
  if (live.isOpen) sequence.restart();
});

// --- What the reader does ---

const firstRow = page.querySelector("tbody tr");
const rate = () => Number(page.querySelector("[name=rate]:checked").value);
for (const radio of page.querySelectorAll("[name=rate]")) {
  radio.addEventListener("change", () => live.send({ type: "rate", per_second: rate() }));
}

const loseButton = page.querySelector("[data-lose]");
loseButton.addEventListener("click", () => {
  lose = true;
  loseButton.disabled = true;
});

let current = null;

function look(instrument) {
  if (!instrument) return;
  if (instrument !== current) {
    current = instrument;
    board.mark(instrument);
    page.querySelector("#detail-title").textContent = `${instrument.symbol} ${instrument.name}`;
    form.reset();
    complain("");
    showPrice();
  }
  live.send({ type: "look", instrument: instrument.id });
}

const price = page.querySelector(".detail-price");

function showPrice() {
  if (!current || current.last === null) return;
  price.querySelector(".last").textContent = current.show(current.last);
  const change = price.querySelector(".change");
  change.textContent = current.change;
  change.dataset.direction = current.direction;
  if (!form.price.placeholder || document.activeElement !== form.price) {
    form.price.placeholder = current.plain(current.last);
  }
}

function say(command) {
  if (!live.send(command)) complain(gettext("There is no connection just now. Try again in a moment."));
}

// --- Alerts ---

const alertList = page.querySelector(".alerts");
const form = page.querySelector(".alert-form");

function complain(text) {
  page.querySelector("#alert-error").textContent = text;
  form.price.toggleAttribute("aria-invalid", Boolean(text));
}

function showAlert({ id, instrument, above, price, fired }) {
  const what = board.get(instrument);
  const text = `${what.symbol} ${above ? "≥" : "≤"} ${what.show(price)}`;
  let item = alertList.querySelector(`[data-id="${id}"]`);
  if (!item) {
    item = render("alert", { text, forget: interpolate(gettext("Forget %s"), [text]) });
    item.dataset.id = id;
    item.querySelector("button").addEventListener("click", () => say({ type: "forget", alert: id }));
    alertList.prepend(item);
  }
  item.classList.toggle("fired", fired);
  fill(item, { state: fired ? gettext("reached") : gettext("waiting") });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = current?.parse(form.price.value) ?? null;
  if (wanted === null) {
    complain(gettext("Write a price, such as 12.50."));
    form.price.focus();
    return;
  }
  complain("");
  say({ type: "alert", instrument: current.id, above: form.above.value === "true", price: wanted });
  form.price.value = "";
});

showConnection(live);
live.connect();
