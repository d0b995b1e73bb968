// Four plots over the last minute, a line for each way, drawn by uPlot in the colours of the theme.
//
// - What a plot shows is in the table, too: a canvas tells nothing to a screen reader.
// - Colours are asked for when they are drawn, so that a change of the theme needs no new plot.

/* global uPlot */

const KEPT = 90; // seconds
const DASHES = { poll: [], wait: [8, 4], stream: [2, 3], socket: [] };

export class Plots {
  #place;
  #plots;
  #times = [];

  // `definitions`: [{ title, least, format, value(sample of a way) }], `ways`: [[name, label]]
  constructor(place, definitions, ways) {
    this.#place = place;
    this.#plots = definitions.map((definition) => this.#make(definition, ways));
    new ResizeObserver(() => this.#fit()).observe(place);
    const repaint = () => this.#plots.forEach(({ chart }) => chart.redraw(false));
    new MutationObserver(repaint).observe(document.documentElement, {
      attributeFilter: ["data-theme"],
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  }

  // `samples`: by way what was measured in the last second; null: it was off.
  add(time, samples) {
    this.#times.push(time);
    const excess = this.#times.length > KEPT;
    if (excess) this.#times.shift();
    for (const { chart, definition, lines } of this.#plots) {
      for (const [name, values] of Object.entries(lines)) {
        values.push(samples[name] ? definition.value(samples[name]) : null);
        if (excess) values.shift();
      }
      chart.setData([this.#times, ...Object.values(lines)]);
    }
  }

  clear() {
    this.#times.length = 0;
    for (const { chart, lines } of this.#plots) {
      for (const values of Object.values(lines)) values.length = 0;
      chart.setData([this.#times, ...Object.values(lines)]);
    }
  }

  #colour(name) {
    // A light-dark() is no colour yet: an element has to take it on.
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    this.#place.append(probe);
    const { color } = getComputedStyle(probe);
    probe.remove();
    return color;
  }

  #make(definition, ways) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = definition.title;
    const body = document.createElement("div");
    body.className = "plot";
    body.setAttribute("aria-hidden", "true");
    figure.append(caption, body);
    this.#place.append(figure);
    const lines = Object.fromEntries(ways.map(([name]) => [name, []]));
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: () => this.#colour("--ink-soft"), font, ticks: { show: false } };
    const chart = new uPlot(
      {
        width: Math.max(body.clientWidth, 100),
        height: Math.max(body.clientHeight, 100),
        legend: { show: false },
        cursor: { show: false },
        padding: [8, 28, 0, 0],
        scales: {
          y: { range: (_, least, most) => [0, Math.max((most ?? 0) * 1.1, definition.least)] },
        },
        axes: [
          {
            ...axis,
            grid: { show: false },
            size: 24,
            space: 70,
            values: (_, splits) => splits.map(clock),
          },
          {
            ...axis,
            grid: { stroke: () => this.#colour("--line"), width: 1 },
            size: 52,
            space: 30,
            values: (_, splits) => splits.map(definition.format),
          },
        ],
        series: [
          {},
          ...ways.map(([name, label]) => ({
            label,
            stroke: () => this.#colour(`--way-${name}`),
            width: name === "socket" ? 4 : 2,
            dash: DASHES[name],
            points: { show: false },
          })),
        ],
      },
      [this.#times, ...Object.values(lines)],
      body,
    );
    return { chart, body, definition, lines };
  }

  #fit() {
    for (const { chart, body } of this.#plots) {
      const [width, height] = [body.clientWidth, body.clientHeight];
      if (width && height && (chart.width !== width || chart.height !== height)) {
        chart.setSize({ width, height });
      }
    }
  }
}

const format = new Intl.DateTimeFormat(document.documentElement.lang, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const clock = (at) => format.format(at * 1000);
