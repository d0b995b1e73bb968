// The pond on a canvas. Sizes are in the pond's units; the view follows the own duck.

const TINTS = {
  teal: "#0e8a84", blue: "#3d78d8", violet: "#7d5fd6", plum: "#a84da0",
  rose: "#cf4674", rust: "#c65a30", ochre: "#b58412", moss: "#628f3c",
};

// A number from 0 to 1 that is always the same for the same `n`: the lilies stay where they are.
const lot = (n) => {
  const value = Math.sin(n * 127.1 + 11.7) * 43758.5453;
  return value - Math.floor(value);
};

export class Picture {
  constructor(canvas, rules) {
    this.canvas = canvas;
    this.rules = rules;
    this.context = canvas.getContext("2d");
    this.calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.lilies = Array.from({ length: 46 }, (_, n) => ({
      x: lot(n) * rules.width,
      y: lot(n + 100) * rules.height,
      r: 14 + lot(n + 200) * 22,
      turn: lot(n + 300) * 6.3,
      flower: lot(n + 400) > 0.72,
    }));
    new ResizeObserver(() => this.fit()).observe(canvas);
    const retint = () => (this.colors = null);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", retint);
    new MutationObserver(retint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    this.fit();
    this.view = { x: rules.width / 2, y: rules.height / 2 };
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.dense = Math.min(2, devicePixelRatio || 1);
    this.canvas.width = Math.max(1, Math.round(width * this.dense));
    this.canvas.height = Math.max(1, Math.round(height * this.dense));
    // Nobody sees further than the server tells.
    this.scale = Math.max(width, height) / (2 * (this.rules.sight - 40));
    this.scale = Math.max(this.scale, 0.62);
  }

  // Where on the canvas a place of the pond is, in CSS pixels.
  place(x, y) {
    return {
      x: (x - this.view.x) * this.scale + this.canvas.clientWidth / 2,
      y: (y - this.view.y) * this.scale + this.canvas.clientHeight / 2,
    };
  }

  #palette() {
    const style = getComputedStyle(this.canvas);
    this.colors ??= {
      water: style.getPropertyValue("background-color"),
      deep: style.getPropertyValue("outline-color"),
      bank: style.getPropertyValue("border-top-color"),
      ink: style.getPropertyValue("color"),
      lily: style.getPropertyValue("text-decoration-color"),
      label: style.getPropertyValue("caret-color"),
    };
    return this.colors;
  }

  draw(own, ducks, grains, people, you, now) {
    const { context: c, rules } = this;
    const color = this.#palette();
    const half = { x: this.canvas.clientWidth / 2 / this.scale, y: this.canvas.clientHeight / 2 / this.scale };
    const edge = 46; // of the bank, that one sees it
    const follow = (at, half, size) =>
      2 * half > size + 2 * edge ? size / 2 : Math.min(Math.max(at, half - edge), size + edge - half);
    this.view = { x: follow(own.x, half.x, rules.width), y: follow(own.y, half.y, rules.height) };

    const zoom = this.scale * this.dense;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.fillStyle = color.bank;
    c.fillRect(0, 0, this.canvas.width, this.canvas.height);
    c.setTransform(zoom, 0, 0, zoom, this.canvas.width / 2 - this.view.x * zoom, this.canvas.height / 2 - this.view.y * zoom);

    c.beginPath();
    c.roundRect(-14, -14, rules.width + 28, rules.height + 28, 40);
    c.fillStyle = color.deep;
    c.fill();
    c.beginPath();
    c.roundRect(0, 0, rules.width, rules.height, 30);
    c.fillStyle = color.water;
    c.fill();
    this.#ripples(c, color, half, this.calm ? 0 : now);
    for (const lily of this.lilies) this.#lily(c, color, lily);
    for (const grain of grains) this.#grain(c, grain);
    for (const [id, duck] of ducks) this.#duck(c, color, duck, people.get(id), false, now);
    this.#duck(c, color, own, people.get(you), true, now);
  }

  #ripples(c, color, half, now) {
    c.strokeStyle = color.deep;
    c.lineWidth = 2;
    c.lineCap = "round";
    c.globalAlpha = 0.5;
    c.beginPath();
    for (let row = Math.floor((this.view.y - half.y) / 90); row <= (this.view.y + half.y) / 90; row += 1) {
      for (let column = Math.floor((this.view.x - half.x) / 170); column <= (this.view.x + half.x) / 170; column += 1) {
        const n = row * 31 + column * 7;
        const x = column * 170 + lot(n) * 110 + Math.sin(now / 1400 + n) * 8;
        const y = row * 90 + lot(n + 50) * 60;
        if (x < 10 || y < 12 || x > this.rules.width - 50 || y > this.rules.height - 12) continue;
        c.moveTo(x, y);
        c.quadraticCurveTo(x + 9, y - 7, x + 18, y);
        c.quadraticCurveTo(x + 27, y + 7, x + 36, y);
      }
    }
    c.stroke();
    c.globalAlpha = 1;
  }

  #lily(c, color, { x, y, r, turn, flower }) {
    c.fillStyle = color.lily;
    c.beginPath();
    c.moveTo(x, y);
    c.arc(x, y, r, turn, turn + 5.7);
    c.closePath();
    c.fill();
    if (!flower) return;
    c.fillStyle = "#f6c9d8";
    for (let leaf = 0; leaf < 6; leaf += 1) {
      c.beginPath();
      c.ellipse(x + Math.cos(leaf * 1.047) * 5, y + Math.sin(leaf * 1.047) * 5, 6, 3.4, leaf * 1.047, 0, 7);
      c.fill();
    }
    c.fillStyle = "#f3b63f";
    c.beginPath();
    c.arc(x, y, 3, 0, 7);
    c.fill();
  }

  #grain(c, { x, y, worth, id }) {
    c.save();
    c.translate(x, y);
    c.lineWidth = 1.5;
    c.strokeStyle = "#7a4d0b";
    if (worth > 1) {
      c.fillStyle = "#d9b27c";
      c.beginPath();
      c.roundRect(-10, -8, 20, 20, 7);
      c.fill();
      c.stroke();
      c.beginPath();
      c.moveTo(-7, -8);
      c.lineTo(-4, -13);
      c.lineTo(4, -13);
      c.lineTo(7, -8);
      c.closePath();
      c.fill();
      c.stroke();
    } else {
      c.rotate(lot(id) * 6.3);
      c.fillStyle = "#f2c14e";
      c.beginPath();
      c.ellipse(0, 0, 7, 4.2, 0, 0, 7);
      c.fill();
      c.stroke();
    }
    c.restore();
  }

  #duck(c, color, duck, person, own, now) {
    const tint = TINTS[person?.color] ?? TINTS.teal;
    const bob = this.calm ? 0 : Math.sin(now / 420 + duck.x * 0.02) * 0.8;
    c.save();
    c.translate(duck.x, duck.y + bob);
    c.globalAlpha = duck.away ? 0.45 : 1;
    c.strokeStyle = color.deep;
    c.lineWidth = 2;
    c.beginPath();
    c.ellipse(0, 3, 25, 22, 0, 0, 7);
    c.stroke();
    if (own) {
      c.strokeStyle = color.ink;
      c.setLineDash([5, 6]);
      c.beginPath();
      c.arc(0, 0, 29, 0, 7);
      c.stroke();
      c.setLineDash([]);
    }
    c.rotate(duck.angle);
    c.fillStyle = tint;
    c.strokeStyle = "#10201e";
    c.lineWidth = 1.5;
    c.beginPath(); // the body, its tail behind
    c.moveTo(-24, 0);
    c.quadraticCurveTo(-14, -16, 2, -14);
    c.quadraticCurveTo(17, -11, 17, 0);
    c.quadraticCurveTo(17, 11, 2, 14);
    c.quadraticCurveTo(-14, 16, -24, 0);
    c.fill();
    c.stroke();
    c.fillStyle = "rgb(255 255 255 / 0.28)";
    for (const side of [-1, 1]) {
      c.beginPath();
      c.ellipse(-5, side * 7.5, 10, 4, side * 0.2, 0, 7);
      c.fill();
    }
    c.fillStyle = "#f08a24";
    c.beginPath(); // the bill
    c.ellipse(25, 0, 6, 4.2, 0, 0, 7);
    c.fill();
    c.stroke();
    c.fillStyle = tint;
    c.beginPath();
    c.arc(14, 0, 9, 0, 7);
    c.fill();
    c.stroke();
    for (const side of [-1, 1]) {
      c.fillStyle = "#fff";
      c.beginPath();
      c.arc(17, side * 4.4, 2.7, 0, 7);
      c.fill();
      c.fillStyle = "#10201e";
      c.beginPath();
      c.arc(18, side * 4.4, 1.3, 0, 7);
      c.fill();
    }
    c.restore();
    if (!person) return;
    const name = person.name;
    c.font = `600 ${Math.max(13, 12 / this.scale)}px system-ui, sans-serif`;
    c.textAlign = "center";
    c.lineJoin = "round";
    c.lineWidth = 4;
    c.strokeStyle = color.label;
    c.fillStyle = color.ink;
    c.strokeText(name, duck.x, duck.y - 34);
    c.fillText(name, duck.x, duck.y - 34);
  }
}
