// The comments over the film, drawn on a canvas.
//
// Where a comment is follows from the film's own time and nothing else: a paused film holds them, a
// wound one shows those of its moment, and a frame that comes late moves none to a wrong place.

import { placeFor } from "./lanes.js";

const CROSSING_MS = 7_000; // for a point, over the width and a little more
const STANDING_MS = 4_000; // for who wants no motion
const CONTROLS_PX = 64; // of the video, at the bottom
const MOST = 3_000; // comments kept in the page
const MOST_FRAMES = 240;

const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Stage {
  #video;
  #canvas;
  #pen;
  #loop;
  #comments = new Map(); // by key, in the order in which they came
  #lanes = [];
  #time = 0;
  #frame = 0;
  #frames = [];

  constructor(video, canvas, loop) {
    this.#video = video;
    this.#canvas = canvas;
    this.#pen = canvas.getContext("2d");
    this.#loop = loop;
    new ResizeObserver(() => this.#arrange()).observe(canvas);
    still.addEventListener("change", () => this.#arrange());
    this.#arrange();
    requestAnimationFrame((now) => this.#draw(now));
  }

  // The moment of the film, in whole milliseconds.
  get time() {
    return Math.min(this.#loop - 1, Math.max(0, Math.floor(this.#time)));
  }

  // What is in the air, for who tests it: texts with their lanes and places.
  get flying() {
    return this.#lanes.flatMap((lane, number) =>
      lane
        .map((comment) => ({ text: comment.text, lane: number, width: comment.width, ...this.#at(comment) }))
        .filter((comment) => comment.visible),
    );
  }

  // Milliseconds that 95 of 100 frames didn't exceed, of the last few seconds.
  get frameTime() {
    const sorted = this.#frames.toSorted((one, other) => one - other);
    return sorted[Math.floor(sorted.length * 0.95)] ?? 0;
  }

  // Takes comments that have a `key`, a `text`, an `at`, and are `own` or `passing` (they fly once).
  // Returns those that are new.
  add(comments) {
    const fresh = comments.filter((comment) => !this.#comments.has(comment.key));
    for (const comment of fresh) {
      this.#comments.set(comment.key, comment);
      this.#place(comment);
    }
    for (const key of this.#comments.keys()) {
      if (this.#comments.size <= MOST) break;
      this.remove(key);
    }
    return fresh;
  }

  remove(key) {
    const comment = this.#comments.get(key);
    this.#comments.delete(key);
    const lane = this.#lanes[comment?.lane];
    if (lane?.includes(comment)) lane.splice(lane.indexOf(comment), 1);
  }

  // All anew, for another width.
  #arrange() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const sharpness = devicePixelRatio || 1;
    this.#canvas.width = width * sharpness;
    this.#canvas.height = height * sharpness;
    this.size = width < 500 ? 16 : 22;
    this.width = width;
    this.speed = (width + 240) / CROSSING_MS; // pixels a millisecond
    this.height = Math.round(this.size * 1.5);
    const count = Math.max(2, Math.floor((height - CONTROLS_PX) / this.height));
    this.#lanes = Array.from({ length: count }, () => []);
    for (const comment of this.#comments.values()) this.#place(comment);
  }

  #place(comment) {
    const pen = this.#pen;
    pen.font = this.#font;
    // Nothing is so long that it meets itself again when the film begins anew.
    const most = still.matches ? this.width - 16 : this.#loop * this.speed - this.width - 40;
    comment.width = Math.min(Math.ceil(pen.measureText(comment.text).width) + 16, most);
    comment.span = still.matches ? STANDING_MS : (comment.width + 24) / this.speed;
    comment.picture = null;
    comment.seen = false;
    const place = placeFor(this.#lanes, comment, this.#loop);
    comment.lane = place?.lane ?? -1;
    if (place) {
      this.#lanes[place.lane] = this.#lanes[place.lane].filter((each) => !place.leaving.includes(each));
      this.#lanes[place.lane].push(comment);
    } else if (comment.passing) this.#comments.delete(comment.key);
  }

  get #font() {
    return `600 ${this.size}px ${getComputedStyle(this.#canvas).fontFamily}`;
  }

  #at(comment) {
    const since = (((this.#time - comment.at) % this.#loop) + this.#loop) % this.#loop;
    if (still.matches) return { x: (this.width - comment.width) / 2, visible: since < STANDING_MS };
    const x = this.width - since * this.speed;
    return { x, visible: x > -comment.width };
  }

  // The video's own clock goes in steps; between them, this one goes on evenly.
  #tick(now) {
    const shown = this.#video.currentTime * 1000;
    const guess = this.#time + (now - this.#frame) * this.#video.playbackRate;
    const isGoing = !this.#video.paused && !this.#video.seeking && this.#video.readyState > 2;
    const even = isGoing && Math.abs(guess - shown) < 100;
    this.#time = even ? guess + (shown - guess) * 0.05 : shown;
    if (this.#frame) this.#frames.push(now - this.#frame);
    if (this.#frames.length > MOST_FRAMES) this.#frames.shift();
    this.#frame = now;
  }

  #draw(now) {
    this.#tick(now);
    const sharpness = this.#canvas.width / this.width || 1;
    this.#pen.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    for (const [number, lane] of this.#lanes.entries()) {
      const gone = [];
      for (const comment of lane) {
        const { x, visible } = this.#at(comment);
        if (visible) {
          comment.seen = true;
          comment.picture ??= this.#paint(comment, sharpness);
          this.#pen.drawImage(comment.picture, Math.round(x * sharpness), number * this.height * sharpness);
        } else if (comment.passing && comment.seen) gone.push(comment);
        else comment.picture = null;
      }
      for (const comment of gone) this.remove(comment.key);
    }
    requestAnimationFrame((next) => this.#draw(next));
  }

  // Text with its outline is slow to draw, and a picture of it isn't.
  #paint(comment, sharpness) {
    const picture = document.createElement("canvas");
    picture.width = Math.ceil(comment.width * sharpness);
    picture.height = Math.ceil(this.height * sharpness);
    const pen = picture.getContext("2d");
    pen.scale(sharpness, sharpness);
    pen.font = this.#font;
    pen.textBaseline = "middle";
    if (comment.own) {
      pen.fillStyle = "rgb(0 0 0 / 0.45)";
      pen.beginPath();
      pen.roundRect(0, 1, comment.width, this.height - 2, 8);
      pen.fill();
    }
    pen.lineJoin = "round";
    pen.lineWidth = 4;
    pen.strokeStyle = "rgb(0 0 0 / 0.75)";
    pen.strokeText(comment.text, 8, this.height / 2, comment.width - 16);
    pen.fillStyle = comment.own ? "#ffe28a" : "#fff";
    pen.fillText(comment.text, 8, this.height / 2, comment.width - 16);
    return picture;
  }
}
