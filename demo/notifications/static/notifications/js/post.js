// The page of a post: comments appear as they are written.

import { Live, showConnection } from "../../live/live.js";
import { render } from "../../live/template.js";

const post = document.querySelector("[data-post]").dataset.post;
const list = document.querySelector(".comments");
const clock = new Intl.DateTimeFormat(document.documentElement.lang, {
  dateStyle: "medium",
  timeStyle: "short",
});
const numbers = () => [...list.children].map((each) => Number(each.dataset.number));

const live = new Live(() => `/ws/board/${post}/?seen=${Math.max(0, ...numbers())}`);

const told = {
  welcome: ({ comments }) => comments.forEach(show),
  comment: ({ comment }) => show(comment),
};

function show({ number, author, text, created_at: at }) {
  if (numbers().includes(number)) return;
  const element = render("comment", { initials: author.initials, name: author.name, text });
  element.id = `comment-${number}`;
  element.dataset.number = number;
  element.querySelector(".avatar").dataset.color = author.color;
  element.querySelector("time").dateTime = at;
  const after = [...list.children].find((each) => Number(each.dataset.number) > number);
  list.insertBefore(element, after ?? null);
  showTime(element.querySelector("time"));
}

function showTime(time) {
  time.textContent = clock.format(new Date(time.dateTime));
}

document.querySelectorAll("main time").forEach(showTime);
live.addEventListener("message", ({ detail }) => told[detail.type]?.(detail));
showConnection(live);
live.connect();
