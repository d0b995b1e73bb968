// What the page knows of the numbers: whether something is missing, and how often that has healed.

export class Sequence {
  #seq = 0;
  #asked = false;
  healed = 0;

  get seq() {
    return this.#seq;
  }

  // The server will begin with a snapshot, which heals nothing.
  restart() {
    this.#seq = 0;
    this.#asked = false;
  }

  snapshot({ seq }) {
    if (this.#asked) this.healed += 1;
    this.#asked = false;
    this.#seq = seq;
  }

  // Returns "apply", "ignore", or "ask": something before this delta is missing.
  delta({ from, seq }) {
    if (this.#asked || seq <= this.#seq) return "ignore";
    if (from > this.#seq) {
      this.#asked = true;
      return "ask";
    }
    this.#seq = seq;
    return "apply";
  }
}
