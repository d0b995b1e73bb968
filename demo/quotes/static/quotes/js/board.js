// The table of all instruments: what each costs, which are shown, which are watched.

const SHOWN_MS = 600; // for how long a change stays marked

export class Board {
  #rows = new Map();
  #root;

  // `handlers`: look(instrument) and watch(id, watching)
  constructor(root, handlers) {
    this.#root = root;
    for (const row of root.querySelectorAll("tbody tr")) {
      const instrument = new Instrument(row);
      this.#rows.set(instrument.id, instrument);
      row.querySelector(".look").addEventListener("click", () => handlers.look(instrument));
      instrument.star.addEventListener("click", () => {
        handlers.watch(instrument.id, !instrument.isWatched);
      });
    }
    this.search = root.querySelector("[type=search]");
    this.search.addEventListener("input", () => this.filter());
    for (const radio of root.querySelectorAll("[name=show]")) {
      radio.addEventListener("change", () => this.filter());
    }
  }

  get(id) {
    return this.#rows.get(id);
  }

  get firstShown() {
    return [...this.#rows.values()].find((each) => !each.row.hidden);
  }

  quotes(rows) {
    for (const [id, ...quote] of rows) this.#rows.get(id)?.quote(quote);
  }

  watched(ids) {
    for (const each of this.#rows.values()) each.isWatched = ids.includes(each.id);
    this.filter();
  }

  // A search goes through everything, whatever is chosen.
  filter() {
    const words = this.search.value.trim().toLowerCase();
    const kind = this.#root.querySelector("[name=show]:checked").value;
    let count = 0;
    for (const each of this.#rows.values()) {
      const isShown = words
        ? `${each.symbol} ${each.name}`.toLowerCase().includes(words)
        : kind === "watched"
          ? each.isWatched
          : each.kind === kind;
      each.row.hidden = !isShown;
      count += isShown;
    }
    this.#root.querySelector(".nothing").hidden = count > 0;
  }

  mark(instrument) {
    for (const each of this.#rows.values()) {
      each.row.classList.toggle("current", each === instrument);
    }
  }
}

class Instrument {
  last = null;
  #marked = null;

  constructor(row) {
    const { id, symbol, name, kind, decimals, opening } = row.dataset;
    Object.assign(this, { row, symbol, name, kind });
    this.id = Number(id);
    this.decimals = Number(decimals);
    this.opening = Number(opening);
    this.star = row.querySelector(".star");
    this.cells = [...row.querySelectorAll(".number")];
    this.format = new Intl.NumberFormat(document.documentElement.lang, {
      minimumFractionDigits: this.decimals,
      maximumFractionDigits: this.decimals,
    });
  }

  get isWatched() {
    return this.star.getAttribute("aria-pressed") === "true";
  }

  set isWatched(value) {
    this.star.setAttribute("aria-pressed", String(value));
  }

  units(price) {
    return price / 10 ** this.decimals;
  }

  show(price) {
    return this.format.format(this.units(price));
  }

  // What is written into a field of a form: without separators, as it is typed.
  plain(price) {
    return this.units(price).toFixed(this.decimals);
  }

  // Returns a price as the server counts it, or null for what is none.
  parse(text) {
    const number = Number(text.trim().replace(",", "."));
    const price = Math.round(number * 10 ** this.decimals);
    return text.trim() && Number.isSafeInteger(price) && price > 0 ? price : null;
  }

  get change() {
    return showChange(this.last / this.opening - 1);
  }

  get direction() {
    return Math.sign(this.last - this.opening);
  }

  quote([last, volume, bid, ask]) {
    const before = this.last;
    this.last = last;
    const [lastCell, changeCell, bidCell, askCell, volumeCell] = this.cells;
    lastCell.textContent = this.show(last);
    changeCell.textContent = this.change;
    changeCell.dataset.direction = this.direction;
    bidCell.textContent = this.show(bid);
    askCell.textContent = this.show(ask);
    volumeCell.textContent = showCount(volume);
    if (before === null || before === last) return;
    lastCell.dataset.moved = last > before ? "up" : "down";
    clearTimeout(this.#marked);
    this.#marked = setTimeout(() => delete lastCell.dataset.moved, SHOWN_MS);
  }
}

const percent = new Intl.NumberFormat(document.documentElement.lang, {
  style: "percent",
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
  signDisplay: "exceptZero",
});
const showChange = (share) => percent.format(share);

const count = new Intl.NumberFormat(document.documentElement.lang);
export const showCount = (number) => count.format(number);
