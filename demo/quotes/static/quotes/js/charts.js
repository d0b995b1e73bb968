// The candles and the depth of one instrument.

import {
  AreaSeries,
  CandlestickSeries,
  createChart,
  createOptionsChart,
  HistogramSeries,
  LineType,
} from "../vendor/lightweight-charts/lightweight-charts.js";

// The library draws on a canvas: colours are read from the page's stylesheet, in the theme of now.
function colours() {
  const probe = document.createElement("span");
  document.body.append(probe);
  const read = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const found = {
    ground: read("--surface"),
    ink: read("--ink-soft"),
    line: read("--line"),
    up: read("--good"),
    down: read("--danger"),
    faint: read("--line-strong"),
    font: getComputedStyle(document.body).fontFamily,
  };
  probe.remove();
  return found;
}

const fade = (rgb, share) => rgb.replace(/^rgb\((.*)\)$/, `rgba($1, ${share})`);

const time = new Intl.DateTimeFormat(document.documentElement.lang, {
  hour: "2-digit",
  minute: "2-digit",
});
const timeWithSeconds = new Intl.DateTimeFormat(document.documentElement.lang, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

const SHOWN_CANDLES = 60; // the older ones are there when the chart is drawn to the right

const COMMON = {
  autoSize: true,
  layout: { attributionLogo: false }, // it brings a style of its own, which the site's policy forbids
  handleScroll: { mouseWheel: false, vertTouchDrag: false },
  handleScale: { mouseWheel: false },
};

export class Charts {
  #instrument = null;
  #candles;
  #price;
  #volume;
  #depth;
  #bids;
  #asks;
  #last = 0; // the time of the newest candle

  constructor(candles, depth) {
    this.#candles = createChart(candles, {
      ...COMMON,
      localization: { timeFormatter: (at) => timeWithSeconds.format(at * 1000) },
      timeScale: {
        timeVisible: true,
        secondsVisible: true,
        tickMarkFormatter: (at) => time.format(at * 1000),
      },
    });
    this.#price = this.#candles.addSeries(CandlestickSeries, { borderVisible: false });
    this.#price.priceScale().applyOptions({ scaleMargins: { top: 0.08, bottom: 0.25 } });
    this.#volume = this.#candles.addSeries(HistogramSeries, {
      priceScaleId: "volume",
      priceFormat: { type: "volume" },
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.#volume.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });

    this.#depth = createOptionsChart(depth, {
      ...COMMON,
      handleScroll: false,
      handleScale: false,
      rightPriceScale: { scaleMargins: { top: 0.05, bottom: 0 } },
    });
    const steps = {
      lineType: LineType.WithSteps,
      lineWidth: 2,
      lastValueVisible: false,
      priceLineVisible: false,
      priceFormat: { type: "volume" },
    };
    this.#bids = this.#depth.addSeries(AreaSeries, steps);
    this.#asks = this.#depth.addSeries(AreaSeries, steps);

    this.#paint();
    new MutationObserver(() => this.#paint()).observe(document.documentElement, {
      attributeFilter: ["data-theme"],
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
  }

  #paint() {
    const { ground, ink, line, up, down, faint, font } = colours();
    for (const chart of [this.#candles, this.#depth]) {
      chart.applyOptions({
        layout: { background: { color: ground }, textColor: ink, fontFamily: font },
        grid: { vertLines: { color: line }, horzLines: { color: line } },
        rightPriceScale: { borderColor: line },
        timeScale: { borderColor: line },
      });
    }
    this.#price.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    this.#volume.applyOptions({ color: fade(faint, 0.5) });
    for (const [series, colour] of [[this.#bids, up], [this.#asks, down]]) {
      series.applyOptions({
        lineColor: colour,
        topColor: fade(colour, 0.35),
        bottomColor: fade(colour, 0.1),
      });
    }
  }

  show(instrument, candles, detail) {
    this.#instrument = instrument;
    const { decimals } = instrument;
    const minMove = 1 / 10 ** decimals;
    this.#price.applyOptions({ priceFormat: { type: "price", precision: decimals, minMove } });
    this.#depth.applyOptions({
      localization: { precision: decimals, timeFormatter: (price) => price.toFixed(decimals) },
    });
    this.#last = candles.at(-1)?.[0] ?? 0;
    this.#price.setData(candles.map((each) => this.#candle(each)));
    this.#volume.setData(candles.map((each) => this.#bar(each)));
    if (detail) this.update(detail);
    const count = candles.length;
    this.#candles.timeScale().setVisibleLogicalRange({ from: count - SHOWN_CANDLES, to: count + 1 });
  }

  update({ id, bid, ask, bids, asks, candle }) {
    if (id !== this.#instrument?.id) return; // its candles are still on their way
    // The newest is told as it grows; what is older than the newest shown came too late.
    if (candle && candle[0] >= this.#last) {
      this.#last = candle[0];
      this.#price.update(this.#candle(candle));
      this.#volume.update(this.#bar(candle));
    }
    const unit = (price) => this.#instrument.units(price);
    this.#bids.setData(
      summed(bids)
        .map((value, level) => ({ time: unit(bid - level), value }))
        .reverse(),
    );
    this.#asks.setData(summed(asks).map((value, level) => ({ time: unit(ask + level), value })));
    this.#depth.timeScale().fitContent();
  }

  #candle([at, open, high, low, close]) {
    const unit = (price) => this.#instrument.units(price);
    return { time: at, open: unit(open), high: unit(high), low: unit(low), close: unit(close) };
  }

  #bar(candle) {
    return { time: candle[0], value: candle[5] };
  }
}

// What can be had up to each level.
function summed(sizes) {
  let sum = 0;
  return sizes.map((size) => (sum += size));
}
