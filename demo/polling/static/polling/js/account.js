// What the page knows of each way: what has arrived, and what the server says that it took.

const NOTHING = { requests: 0, up: 0, down: 0, cpu: 0 };

// The server's account: sums of each process that has served this page, which are added up.
export class Costs {
  #processes = new Map();
  #zero = {};
  #zeroCpu = 0;

  // `ways`: by name requests, bytes received, bytes sent, seconds of processor time
  take({ process, process_cpu_s, ways }) {
    const first = this.#processes.get(process)?.first ?? process_cpu_s;
    this.#processes.set(process, { first, cpu: process_cpu_s, ways });
  }

  #sum(name) {
    const sum = { ...NOTHING };
    for (const { ways } of this.#processes.values()) {
      const [requests, up, down, cpu_s] = ways[name] ?? [0, 0, 0, 0];
      sum.requests += requests;
      sum.up += up;
      sum.down += down;
      sum.cpu += cpu_s * 1000;
    }
    return sum;
  }

  of(name) {
    const sum = this.#sum(name);
    const zero = this.#zero[name] ?? NOTHING;
    return Object.fromEntries(Object.keys(sum).map((key) => [key, sum[key] - zero[key]]));
  }

  // Milliseconds of the whole processes, since they were first heard of.
  get processes() {
    let cpu_s = 0;
    for (const each of this.#processes.values()) cpu_s += each.cpu - each.first;
    return 1000 * cpu_s - this.#zeroCpu;
  }

  reset(names) {
    this.#zero = Object.fromEntries(names.map((name) => [name, this.#sum(name)]));
    this.#zeroCpu += this.processes;
  }
}

// What has arrived in one way.
export class Arrivals {
  ids = new Set();
  delays = [];
  #windows = []; // [first, last] number of each time in which it was on

  begin() {
    this.#windows.push(null);
  }

  take(id, delay) {
    const last = this.#windows.length - 1;
    const window = this.#windows[last];
    this.#windows[last] = window ? [window[0], Math.max(window[1], id)] : [id, id];
    this.ids.add(id);
    this.delays.push(delay);
  }

  // How many of these numbers should have come, and have not.
  missing(ids) {
    let count = 0;
    for (const id of ids) {
      if (this.ids.has(id)) continue;
      if (this.#windows.some((window) => window && window[0] <= id && id <= window[1])) count += 1;
    }
    return count;
  }

  reset() {
    this.ids.clear();
    this.delays = [];
    this.#windows = this.#windows.length ? [null] : [];
  }
}

export function median(values) {
  if (!values.length) return null;
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.floor(sorted.length / 2)];
}

// The server's clock, as far as it can be told: of several questions the quickest is believed.
export class Clock {
  offset = 0; // what is to be added to the page's time, in milliseconds
  error = Infinity;

  take({ asked, now }, heard) {
    const error = (heard - asked) / 2;
    if (error > this.error) return;
    this.error = error;
    const offset = now * 1000 - (performance.timeOrigin + asked + error);
    // Within the error the two clocks agree, as those of one machine do: then nothing is set.
    this.offset = Math.abs(offset) <= error ? 0 : offset;
  }
}
