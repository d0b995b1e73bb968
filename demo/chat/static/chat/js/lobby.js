// The page with every room.

import { LOGGED_OUT, Live, showConnection } from "../../live/live.js";
import { Rooms } from "./rooms.js";

const rooms = new Rooms(Number(document.querySelector("main").dataset.you));
const live = new Live(() => "/ws/lobby/");

const told = {
  rooms: (event) => rooms.all(event.rooms),
  activity: (event) => rooms.activity(event),
  read: (event) => rooms.read(event),
  room: (event) => rooms.open(event.room),
};

live.addEventListener("message", ({ detail }) => told[detail.type]?.(detail));
live.addEventListener("state", () => {
  // Who is logged out is shown the door by the page, made anew.
  if (live.code === LOGGED_OUT) location.reload();
});
showConnection(live);
live.connect();
