/* Plots over time, drawn by uPlot in the colours of the admin's theme.

   Rules of this file:
   - What a plot shows is in its caption too, as text: a canvas tells nothing to a screen reader.
   - Colours are asked for when they are drawn, so that a change of the theme needs no new plot.
   - A time without news is a gap, not a line from one end of it to the other. */

"use strict";

window.headraceOperations = window.headraceOperations || {};

window.headraceOperations.Plots = class {
  static KEPT = 300;
  static GAP_S = 5;

  /* ``definitions``: [{title, least, whole?, binary?, series: [{label, value(figures), format}]}]; an
     axis
     reaches up to ``least`` at least, has whole numbers alone where
     it is ``whole``, and steps of powers of two where it is ``binary``. */
  constructor(place, definitions) {
    this.place = place;
    this.times = [];
    this.plots = definitions.map((definition) => this.#make(definition));
    new ResizeObserver(() => this.#fit()).observe(place);
    const repaint = () => this.plots.forEach(({ chart }) => chart.redraw(false));
    new MutationObserver(repaint).observe(document.documentElement, {
      attributes: true,
      attributeFilter: ["data-theme"],
    });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  }

  /* Take in one more point. */
  add(figures) {
    const last = this.times.at(-1);
    if (last !== undefined && figures.at <= last) return;
    if (last !== undefined && figures.at - last > this.constructor.GAP_S) {
      this.#push(last + 1, () => null);
    }
    this.#push(figures.at, (series) => series.value(figures) ?? null);
  }

  /* Draw what there is. */
  draw() {
    for (const { chart, values, definition, keys } of this.plots) {
      chart.setData([this.times, ...values]);
      definition.series.forEach((series, i) => {
        const value = values[i].at(-1);
        keys[i].textContent = `${series.label} ${value == null ? "–" : series.format(value)}`;
      });
    }
  }

  clear() {
    this.times.length = 0;
    for (const { values } of this.plots) values.forEach((each) => (each.length = 0));
  }

  #push(time, valueOf) {
    this.times.push(time);
    const excess = this.times.length - this.constructor.KEPT;
    if (excess > 0) this.times.splice(0, excess);
    for (const { values, definition } of this.plots) {
      definition.series.forEach((series, i) => {
        values[i].push(valueOf(series));
        if (excess > 0) values[i].splice(0, excess);
      });
    }
  }

  #colour(name) {
    return getComputedStyle(this.place).getPropertyValue(name).trim();
  }

  #make(definition) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const title = document.createElement("strong");
    title.textContent = definition.title;
    caption.append(title);
    const keys = definition.series.map((series, i) => {
      const key = document.createElement("span");
      key.className = `hr-key hr-key-${i + 1}`;
      key.textContent = series.label;
      caption.append(key);
      return key;
    });
    const body = document.createElement("div");
    body.className = "hr-plot";
    body.setAttribute("aria-hidden", "true");
    figure.append(caption, body);
    this.place.append(figure);

    const quiet = () => this.#colour("--body-quiet-color");
    const hairline = () => this.#colour("--hairline-color");
    const font = "11px system-ui, sans-serif";
    const format = definition.series[0].format;
    const chart = new uPlot(
      {
        width: Math.max(body.clientWidth, 100),
        height: Math.max(body.clientHeight, 100),
        legend: { show: false },
        cursor: { show: false },
        padding: [8, 24, 0, 0],
        scales: { y: { range: (_, least, most) => [Math.min(0, least ?? 0), Math.max((most ?? 0) * 1.1, definition.least)] } },
        axes: [
          { stroke: quiet, font, grid: { show: false }, ticks: { show: false }, size: 24, space: 70,
            values: (_, splits) => splits.map((at) => this.#clock(at)) },
          { stroke: quiet, font, grid: { stroke: hairline, width: 1 }, ticks: { show: false },
            size: 58, space: 32,
            ...(definition.binary ? { incrs: Array.from({ length: 40 }, (_, n) => 2 ** n) } : {}),
            ...(definition.whole ? { incrs: [1, 2, 5, 10, 20, 50].flatMap((n) => [n, n * 100, n * 10_000]).sort((a, b) => a - b) } : {}),
            values: (_, splits) => splits.map((value) => format(value)) },
        ],
        series: [
          {},
          ...definition.series.map((series, i) => ({
            label: series.label,
            stroke: () => this.#colour(`--hr-line-${i + 1}`),
            width: 2,
            dash: [[], [6, 4], [2, 3]][i],
            points: { show: false },
          })),
        ],
      },
      [[], ...definition.series.map(() => [])],
      body,
    );
    return { definition, chart, body, keys, values: definition.series.map(() => []) };
  }

  #clock(at) {
    return new Date(at * 1000).toLocaleTimeString([], {
      hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
    });
  }

  #fit() {
    for (const { chart, body } of this.plots) {
      const [width, height] = [body.clientWidth, body.clientHeight];
      if (width && height && (chart.width !== width || chart.height !== height)) {
        chart.setSize({ width, height });
      }
    }
  }
};
