// The page with every room.

import { LOGGED_OUT, Live, showConnection } from "../../live/live.js";
import { Rooms } from "./rooms.js";

const rooms = new Rooms(Number(document.querySelector("main").dataset.you));
const live = new Live(() => "/ws/lobby/");
let wasOpen = false;

const told = {
  activity: (event) => rooms.activity(event),
  read: (event) => rooms.read(event),
  room: (event) => rooms.open(event.room),
};

live.addEventListener("message", ({ detail }) => told[detail.type]?.(detail));
live.addEventListener("state", () => {
  // What happened while nobody told us is in the page, made anew; and who is logged out is shown
  // the door there.
  if (live.code === LOGGED_OUT || (live.isOpen && wasOpen)) location.reload();
  wasOpen ||= live.isOpen;
});
showConnection(live);
live.connect();
