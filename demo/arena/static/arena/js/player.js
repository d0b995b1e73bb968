// One's own duck before the server has answered, and the others a little after it has told.
//
// Own: each input is numbered, sent, and made at once. A frame says up to which input the server has
// come, and where the duck was then: what came after is made again from there (reconciled). Where
// that differs from what was shown, the difference melts away within a few frames.
//
// Others: they are shown as they were DELAY_MS ago, between the two frames around that moment, so
// that they glide although frames come in steps and not evenly.

const DELAY_MS = 100;
const KEPT = 20; // frames
const MELT = 0.82; // of a difference, each time it is drawn at 60 a second
const JUMP = 160; // a difference that is no error any more, but another place

// The server's own arithmetic: `swim` of arena/world.py.
export function swim(rules, { x, y, vx, vy }, dx, dy) {
  const step = 1 / rules.tick_hz;
  const length = Math.max(1, Math.hypot(dx, dy));
  vx = (vx + (dx / length) * rules.push * step) * rules.drag;
  vy = (vy + (dy / length) * rules.push * step) * rules.drag;
  const speed = Math.hypot(vx, vy);
  if (speed > rules.top_speed) {
    vx = (vx / speed) * rules.top_speed;
    vy = (vy / speed) * rules.top_speed;
  }
  x += vx * step;
  y += vy * step;
  const r = rules.duck_radius;
  if (x < r || x > rules.width - r) {
    x = Math.min(Math.max(x, r), rules.width - r);
    vx = 0;
  }
  if (y < r || y > rules.height - r) {
    y = Math.min(Math.max(y, r), rules.height - r);
    vy = 0;
  }
  return { x, y, vx, vy };
}

export class Player {
  #pending = []; // inputs that no frame has answered yet
  #number = 0;
  #before = null; // the own duck a tick ago, and now
  #now = null;
  #off = { x: 0, y: 0 }; // what is still to melt

  constructor(rules) {
    this.rules = rules;
    this.angle = 0;
  }

  get ready() {
    return this.#now !== null;
  }

  get pending() {
    return this.#pending.length;
  }

  // A new connection: what was sent over the old one may not have come.
  restart() {
    this.#pending = [];
  }

  // One tick of pushing towards `dx`, `dy` in 127ths. Returns the number of the input, or 0 when
  // there is nothing to say: a duck that rests needs no input.
  push(dx, dy) {
    if (!this.#now) return 0;
    this.#before = this.#now;
    const rests = Math.hypot(this.#now.vx, this.#now.vy) < 2;
    if (!dx && !dy && rests) return 0;
    this.#number += 1;
    this.#pending.push({ number: this.#number, dx: dx / 127, dy: dy / 127 });
    if (this.#pending.length > 100) this.#pending.shift();
    this.#now = swim(this.rules, this.#now, dx / 127, dy / 127);
    if (dx || dy) this.angle = Math.atan2(dy, dx);
    return this.#number;
  }

  reconcile(frame) {
    this.#pending = this.#pending.filter((input) => input.number > frame.taken);
    let now = frame.own;
    let before = now;
    for (const { dx, dy } of this.#pending) {
      before = now;
      now = swim(this.rules, now, dx, dy);
    }
    if (this.#now) {
      this.#off.x += this.#now.x - now.x;
      this.#off.y += this.#now.y - now.y;
      if (Math.hypot(this.#off.x, this.#off.y) > JUMP) this.#off = { x: 0, y: 0 };
      // What is drawn lies between the two: move both.
      this.#before = { x: this.#before.x + now.x - this.#now.x, y: this.#before.y + now.y - this.#now.y };
    } else {
      this.#before = before;
      this.angle = frame.angle;
    }
    this.#now = now;
  }

  // Where to draw the duck, `part` of a tick after the last.
  at(part, elapsed_ms) {
    const melt = MELT ** (elapsed_ms / 16.7);
    this.#off.x *= melt;
    this.#off.y *= melt;
    return {
      x: this.#before.x + (this.#now.x - this.#before.x) * part + this.#off.x,
      y: this.#before.y + (this.#now.y - this.#before.y) * part + this.#off.y,
      angle: this.angle,
    };
  }
}

export class Others {
  #frames = [];
  #base = null; // what the clock showed at tick 0, as far as frames tell

  constructor(rules) {
    this.tickMs = 1000 / rules.tick_hz;
  }

  clear() {
    this.#frames = [];
    this.#base = null;
  }

  add(frame, now) {
    const base = now - frame.tick * this.tickMs;
    if (this.#base === null || Math.abs(base - this.#base) > 500) this.#base = base;
    else this.#base += (base - this.#base) * 0.1;
    this.#frames.push(frame);
    if (this.#frames.length > KEPT) this.#frames.shift();
  }

  // All ducks in sight, as they were DELAY_MS ago.
  at(now) {
    const tick = (now - this.#base - DELAY_MS) / this.tickMs;
    const after = this.#frames.findIndex((frame) => frame.tick >= tick);
    const next = this.#frames.at(after);
    const last = after > 0 ? this.#frames[after - 1] : next;
    if (!next) return new Map();
    const span = next.tick - last.tick;
    const part = span ? Math.min(1, (tick - last.tick) / span) : 1;
    const ducks = new Map();
    for (const [id, duck] of next.ducks) {
      const from = last.ducks.get(id) ?? duck;
      let turn = duck.angle - from.angle;
      turn -= 2 * Math.PI * Math.round(turn / (2 * Math.PI));
      ducks.set(id, {
        x: from.x + (duck.x - from.x) * part,
        y: from.y + (duck.y - from.y) * part,
        angle: from.angle + turn * part,
        away: duck.away,
      });
    }
    return ducks;
  }
}
