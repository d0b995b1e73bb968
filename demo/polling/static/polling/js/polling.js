// The page: ties the four ways to the plots, the table and the handshake.

import { Live, SOMEBODY_ELSE, showConnection } from "../../live/live.js";
import { Arrivals, Clock, Costs, median } from "./account.js";
import { Handshake, showFrame } from "./handshake.js";
import { Plots } from "./plots.js";
import { waysFor } from "./ways.js";

const NAMES = ["poll", "wait", "stream", "socket"];
const SAMPLE_MS = 1000;
const FRAME_EVERY_MS = 2000; // or nobody could read one
const STOP_AFTER_MS = 10 * 60_000;
const QUESTIONS = 5; // about the time

const page = document.querySelector("main.polling");
const said = page.querySelector(".said");
const lang = document.documentElement.lang;

// A UUID; crypto.randomUUID() is only there over HTTPS and on this machine.
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

const settings = {
  run: uuid(),
  get rate() {
    return page.querySelector("[name=rate]:checked").value;
  },
  get interval() {
    return Number(page.querySelector("[name=interval]").value);
  },
};
const costs = new Costs();
const clock = new Clock();
const arrivals = Object.fromEntries(NAMES.map((name) => [name, new Arrivals()]));
const fresh = Object.fromEntries(NAMES.map((name) => [name, []])); // delays since the last sample
const handshake = new Handshake(page);

const ways = waysFor(settings, {
  message(way, { id, born, level_mm }, at) {
    const delay = Math.max(0, at + clock.offset - born * 1000);
    arrivals[way.name].take(id, delay);
    fresh[way.name].push(delay);
    way.last = { id, level_mm, delay };
    if (way.name === "socket") handshake.showExtensions(way.extensions);
  },
  state: showWay,
  missed(way) {
    say(interpolate(gettext("%s: it was away too long, and something is missing."), [labels[way.name]]));
  },
});

// --- Start and stop ---

const cards = Object.fromEntries(
  NAMES.map((name) => [name, page.querySelector(`.way[data-way=${name}]`)]),
);
const labels = Object.fromEntries(
  NAMES.map((name) => [name, cards[name].querySelector("h2").textContent.trim()]),
);
let stopTimer = null;

function showWay(way) {
  const card = cards[way.name];
  card.dataset.state = way.state;
  card.querySelector("[data-slot=what]").textContent = way.isOn ? gettext("Stop") : gettext("Start");
  if (way.state === "refused") say(`${labels[way.name]}: ${way.why}`);
  const isAnyOn = NAMES.some((name) => ways[name].isOn);
  if (!isAnyOn) {
    clearTimeout(stopTimer);
    stopTimer = null;
  } else if (stopTimer === null) {
    stopTimer = setTimeout(() => stop(gettext("Stopped after ten minutes.")), STOP_AFTER_MS);
  }
}

function say(text) {
  if (said.textContent !== text) said.textContent = text; // else it is read out again
}

function start(way) {
  if (way.isOn) return;
  arrivals[way.name].begin();
  way.start();
}

function stop(why) {
  const running = NAMES.map((name) => ways[name]).filter((way) => way.isOn);
  for (const way of running) way.stop();
  if (running.length) say(why);
}

for (const name of NAMES) {
  cards[name].querySelector("button").addEventListener("click", () => {
    if (ways[name].isOn) ways[name].stop();
    else start(ways[name]);
    say("");
  });
}
page.querySelector("[data-all=start]").addEventListener("click", () => {
  for (const name of NAMES) start(ways[name]);
  say(gettext("All four are on."));
});
page.querySelector("[data-all=stop]").addEventListener("click", () => {
  stop(gettext("All four are off."));
});
for (const radio of page.querySelectorAll("[name=rate]")) {
  radio.addEventListener("change", () => {
    for (const name of NAMES) {
      if (ways[name].isOn) arrivals[name].begin(); // other numbers are due from here on
      ways[name].renew();
    }
  });
}
page.querySelector("[data-reset]").addEventListener("click", () => {
  costs.reset(NAMES);
  for (const name of NAMES) {
    arrivals[name].reset();
    before[name] = { ...costs.of(name) };
  }
  plots.clear();
  showTotals();
  say(gettext("Everything counts from zero."));
});

// Nobody looks: then nobody asks.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") stop(gettext("Stopped while the page was hidden."));
});
addEventListener("pagehide", () => stop(gettext("Stopped while the page was hidden.")));

// --- Plots and table ---

const whole = new Intl.NumberFormat(lang, { maximumFractionDigits: 0 });
const precise = new Intl.NumberFormat(lang, { maximumFractionDigits: 1 });
const number = (value) => (value < 100 ? precise : whole).format(value);

const plots = new Plots(
  page.querySelector(".plots"),
  [
    { title: gettext("Requests a second"), least: 2, format: number, value: ({ requests }) => requests },
    {
      title: gettext("Bytes a second, both ways"),
      least: 1000,
      format: (value) => (value >= 1000 ? `${number(value / 1000)} kB` : whole.format(value)),
      value: ({ up, down }) => up + down,
    },
    {
      title: gettext("Processor, ms a second"),
      least: 2,
      format: number,
      value: ({ cpu }) => cpu,
    },
    { title: gettext("Delay, ms"), least: 20, format: number, value: ({ delay }) => delay },
  ],
  // The last is on top: a dotted line shows over a thick one.
  ["poll", "wait", "socket", "stream"].map((name) => [name, labels[name]]),
);

const before = {};
let sampledAt = performance.now();

function sample() {
  const at = performance.now();
  const seconds = (at - sampledAt) / 1000;
  sampledAt = at;
  const samples = {};
  for (const name of NAMES) {
    const now = costs.of(name);
    const then = before[name] ?? now;
    before[name] = now;
    if (ways[name].isOn) {
      samples[name] = { delay: median(fresh[name]) };
      for (const key of Object.keys(now)) samples[name][key] = (now[key] - then[key]) / seconds;
    }
    fresh[name].length = 0;
  }
  if (Object.keys(samples).length) plots.add(Date.now() / 1000, samples);
  showTotals();
  for (const name of NAMES) showLast(ways[name]);
}

function showLast(way) {
  const slot = cards[way.name].querySelector("[data-slot=last]");
  if (way.state === "waiting") slot.textContent = gettext("Connection lost, trying again…");
  else if (way.last) {
    const { id, level_mm, delay } = way.last;
    slot.textContent = `${whole.format(level_mm)} mm · № ${id} · ${whole.format(delay)} ms`;
  }
}

const cells = Object.fromEntries(
  [...NAMES, "all"].map((name) => [
    name,
    Object.fromEntries(
      [...page.querySelectorAll(`.totals [data-way=${name}] [data-cell]`)].map((cell) => [
        cell.dataset.cell,
        cell,
      ]),
    ),
  ]),
);

// `ratio`: times that of the WebSocket, for each message
function showCell(cell, text, ratio = null) {
  const small = ratio === null || !Number.isFinite(ratio) ? "" : `${number(ratio)} ×`;
  if (cell.dataset.text === text + small) return;
  cell.dataset.text = text + small;
  cell.textContent = text;
  if (!small) return;
  const node = document.createElement("small");
  node.textContent = small;
  cell.append(" ", node);
}

function showTotals() {
  const union = new Set(NAMES.flatMap((name) => [...arrivals[name].ids]));
  const totals = NAMES.map((name) => ({
    name,
    ...costs.of(name),
    messages: arrivals[name].ids.size,
    missing: arrivals[name].missing(union),
    delay: median(arrivals[name].delays),
  }));
  const socket = totals.at(-1);
  for (const each of totals) {
    const ratio = (key) =>
      each !== socket && each.messages && socket.messages
        ? each[key] / each.messages / (socket[key] / socket.messages)
        : null;
    each.bytes = each.up + each.down;
    socket.bytes = socket.up + socket.down;
    const row = cells[each.name];
    showCell(row.messages, whole.format(each.messages));
    showCell(row.missing, whole.format(each.missing));
    showCell(row.requests, whole.format(each.requests), ratio("requests"));
    showCell(row.up, whole.format(each.up), ratio("up"));
    showCell(row.down, whole.format(each.down), ratio("down"));
    showCell(row.each, each.messages ? whole.format(each.bytes / each.messages) : "–", ratio("bytes"));
    showCell(row.cpu, precise.format(each.cpu), ratio("cpu"));
    showCell(row.delay, each.delay === null ? "–" : precise.format(each.delay));
  }
  const sum = (key) => totals.reduce((result, each) => result + each[key], 0);
  const all = cells.all;
  for (const key of ["messages", "missing", "requests", "up", "down"]) {
    showCell(all[key], whole.format(sum(key)));
  }
  showCell(all.cpu, precise.format(sum("cpu")));
  page.querySelector("[data-process]").textContent = sum("requests")
    ? interpolate(
        gettext("The whole server, with everybody else it served meanwhile: %s ms of processor time."),
        [precise.format(costs.processes)],
      )
    : "";
}

setInterval(sample, SAMPLE_MS);

// --- What the server says ---

const live = new Live(() => `/ws/polling/?run=${settings.run}`);
const frameShownAt = { page: -Infinity, server: -Infinity };

const told = {
  welcome({ you }) {
    if (String(you) !== page.dataset.you) {
      live.stop(SOMEBODY_ELSE);
      return;
    }
    clock.error = Infinity;
    for (let count = 0; count < QUESTIONS; count += 1) {
      setTimeout(() => live.send({ type: "clock", asked: performance.now() }), count * 200);
    }
  },

  clock(event) {
    clock.take(event, performance.now());
    page.querySelector("[data-error]").textContent = `${precise.format(clock.error)} ms`;
  },

  costs(event) {
    costs.take(event);
    const now = performance.now();
    for (const frame of event.frames) {
      if (frame.to === "page" && now - frameShownAt.page < FRAME_EVERY_MS) continue;
      frameShownAt[frame.to] = now;
      showFrame(page.querySelector(`[data-frame=${frame.to}]`), frame);
    }
  },

  handshake: (event) => handshake.show(event),
};

live.addEventListener("message", ({ detail }) => told[detail.type]?.(detail));
live.addEventListener("state", () => {
  if (live.state === "stopped") stop(live.reason); // logged out, say
});

const form = page.querySelector(".say");
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!form.text.value || !ways.socket.say(form.text.value)) {
    say(gettext("The WebSocket is off: start it first."));
  }
});

showConnection(live);
live.connect();
