// Which way the player wants to swim: by keys, or towards the finger (or the mouse) that is held
// down on the water.

const KEYS = {
  ArrowUp: [0, -1],
  KeyW: [0, -1],
  ArrowDown: [0, 1],
  KeyS: [0, 1],
  ArrowLeft: [-1, 0],
  KeyA: [-1, 0],
  ArrowRight: [1, 0],
  KeyD: [1, 0],
};
const CALM = 12; // pixels around the duck within which a finger means: stay

export class Steering {
  #held = new Set();
  #finger = null;

  // `duckAt` returns where on the canvas the own duck is, in CSS pixels.
  constructor(canvas, duckAt) {
    this.duckAt = duckAt;
    addEventListener("keydown", (event) => {
      if (!(event.code in KEYS) || event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.target.closest?.("input, select, textarea")) return;
      event.preventDefault(); // arrows would scroll
      this.#held.add(event.code);
    });
    addEventListener("keyup", (event) => this.#held.delete(event.code));
    const letGo = () => {
      this.#held.clear();
      this.#finger = null;
    };
    addEventListener("blur", letGo);
    document.addEventListener("visibilitychange", letGo);
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      this.#finger = { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      point(event);
    });
    canvas.addEventListener("pointermove", (event) => this.#finger && point(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, () => (this.#finger = null));
    }
  }

  get finger() {
    return this.#finger;
  }

  // The direction in 127ths, of a length of 127 at most.
  direction() {
    let x = 0;
    let y = 0;
    for (const code of this.#held) {
      x += KEYS[code][0];
      y += KEYS[code][1];
    }
    if (this.#finger) {
      const duck = this.duckAt();
      x = this.#finger.x - duck.x;
      y = this.#finger.y - duck.y;
      if (Math.hypot(x, y) < CALM) return [0, 0];
    }
    const length = Math.hypot(x, y);
    return length ? [Math.round((x / length) * 127), Math.round((y / length) * 127)] : [0, 0];
  }
}
