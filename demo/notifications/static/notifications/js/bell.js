// The bell of every page: how much is unread, the newest, and what comes while one looks.
//
// Each event carries the revision of the inbox that it leads to. One that is older than what the
// bell shows is late and changes no count; one that skips a revision says that something was
// missed, and the bell asks for all of it.

import { Live, SOMEBODY_ELSE } from "../../live/live.js";
import { render } from "../../live/template.js";

const _ = window.gettext;
const find = (name) => document.querySelector(`[data-${name}]`);
const panel = document.getElementById("bell-panel");
const note = find("bell-note");
const readAll = find("read-all");
const lists = [...document.querySelectorAll("[data-notifications]")];
const kinds = JSON.parse(document.getElementById("notification-kinds").textContent);
const clock = new Intl.DateTimeFormat(document.documentElement.lang, {
  dateStyle: "medium",
  timeStyle: "short",
});

const live = new Live(() => "/ws/bell/");
let revision = Number(panel.dataset.revision);

const told = {
  welcome(state) {
    // The page was made for somebody: another log-in in this browser gets a page of its own.
    if (state.you !== Number(panel.dataset.you)) return live.stop(SOMEBODY_ELSE);
    panel.dataset.state = "open";
    for (const each of state.latest.reverse()) show(each);
    if (state.revision >= revision) count(state);
  },
  notification(event) {
    const isNew = !elements(event.notification.number).length;
    show(event.notification);
    follow(event);
    if (isNew) announce(event.notification);
  },
  read(event) {
    for (const element of document.querySelectorAll("[data-notification]")) {
      const number = Number(element.dataset.notification);
      if (number === event.number || number <= event.up_to) element.classList.add("read");
    }
    follow(event);
  },
  error(event) {
    note.textContent = event.text;
  },
};

live.addEventListener("message", ({ detail }) => told[detail.type]?.(detail));
live.addEventListener("state", () => {
  if (!live.isOpen) panel.dataset.state = live.state; // open it is with the welcome
});

// --- What there is ---

function follow(event) {
  if (event.revision <= revision) return;
  if (event.revision > revision + 1) live.send({ type: "list" });
  count(event);
}

function count(state) {
  revision = state.revision;
  panel.dataset.revision = revision;
  find("bell-unread").textContent = state.unread;
  find("bell-badge").hidden = readAll.hidden = !state.unread;
  if (state.unread) return;
  for (const element of document.querySelectorAll("[data-notification]")) {
    element.classList.add("read");
  }
}

function elements(number) {
  return [...document.querySelectorAll(`[data-notification="${number}"]`)];
}

// Put it into every list that shows the newest, or bring it up to date there. The numbers tell the
// order; what is read stays so, for an event may be older than what is shown.
function show(notification) {
  const { number, kind, text, url, created_at: at, is_read: isRead } = notification;
  find("bell-empty").hidden = true;
  for (const element of elements(number)) element.classList.toggle("read", isRead || element.matches(".read"));
  for (const list of lists) {
    if (elements(number).some((element) => list.contains(element))) continue;
    const element = render("notification", { title: kinds[kind] ?? kind, text });
    element.dataset.notification = number;
    element.classList.toggle("read", isRead);
    element.querySelector("a").href = url;
    element.querySelector("time").dateTime = at;
    showTime(element);
    const after = [...list.children].find((each) => Number(each.dataset.notification) < number);
    list.insertBefore(element, after ?? null);
    while (list.children.length > Number(list.dataset.notifications)) list.lastChild.remove();
  }
}

function showTime(element) {
  const time = element.querySelector("time");
  time.textContent = clock.format(new Date(time.dateTime));
}

document.querySelectorAll("[data-notification]").forEach((element) => {
  if (element.dataset.notification) showTime(element);
});

// --- What the reader does ---

document.addEventListener("click", (event) => {
  const one = event.target.closest("[data-read-one]")?.closest("[data-notification]");
  if (one) say({ type: "read", number: Number(one.dataset.notification) });
});
readAll.addEventListener("click", () => {
  const numbers = [...document.querySelectorAll("[data-notification]")].map((each) => Number(each.dataset.notification));
  say({ type: "read_all", up_to: Math.max(0, ...numbers) });
});

function say(command) {
  const isSaid = live.send(command);
  note.textContent = isSaid ? "" : _("There is no connection just now. Try again in a moment.");
}

// --- Outside of the page ---

const button = find("bell-browser");
const KEPT = "bell-browser";
const isWanted = () => localStorage.getItem(KEPT) === "yes" && Notification.permission === "granted";
const showWanted = () => button.setAttribute("aria-pressed", String(isWanted()));

if ("Notification" in window) {
  button.hidden = false;
  showWanted();
  // Browsers show the question for a click only, and people say yes to what they have asked for.
  button.addEventListener("click", async () => {
    const isOn = isWanted();
    const answer = isOn ? "granted" : await Notification.requestPermission();
    localStorage.setItem(KEPT, isOn || answer !== "granted" ? "no" : "yes");
    note.textContent = answer === "denied" ? _("Your browser does not allow it for this site; its settings do.") : "";
    showWanted();
  });
  addEventListener("storage", showWanted);
}

function announce({ number, kind, text, url }) {
  const title = kinds[kind] ?? kind;
  if (document.visibilityState === "visible") {
    find("bell-said").textContent = `${title}: ${text}`;
    return;
  }
  if (!("Notification" in window) || !isWanted()) return;
  try {
    // Several tabs tell the same: by its tag the browser shows it once.
    const shown = new Notification(title, { body: text, tag: `millpond-${number}` });
    shown.onclick = () => {
      focus();
      location.assign(url);
    };
  } catch {
    // Some phones know the name and want a service worker: there the bell has to do.
  }
}

live.connect();
