/* The operations page: what the server is doing, told over a WebSocket, second by second.

   Rules of this file:
   - The numbers are computed by the server (``headrace/figures.py``); here they are written down.
   - The page says at once when it is not live, and comes again by itself, later each time.
   - Searching, sorting and paging are the server's: it has more rows than a page should. */

"use strict";

(() => {
  const { Plots, Table } = window.headraceOperations;
  const page = document.getElementById("hr-operations");
  const words = JSON.parse(document.getElementById("hr-words").textContent);
  const at = (id) => document.getElementById(`hr-${id}`);
  const mayClose = page.dataset.mayClose === "yes";
  const language = document.documentElement.lang || undefined;

  const LOGGED_OUT = 4401;
  const FORBIDDEN = 4403;
  const FIRST_PAUSE_MS = 500;
  const LONGEST_PAUSE_MS = 15_000;

  // How things are written.

  const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
  const short = new Intl.NumberFormat(language, { maximumSignificantDigits: 3, notation: "compact" });
  const none = "–";
  const known = (format) => (value) => (value == null ? none : format(value));
  const count = known((value) => whole.format(value));
  const few = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
  const rate = known((value) => (value < 1000 ? few : short).format(value < 0.05 ? 0 : value));
  const share = known((value) => `${whole.format(value * 100)} %`);
  const bytes = known((value) => {
    let unit = 0;
    while (Math.abs(value) >= 1024 && unit < 4) [value, unit] = [value / 1024, unit + 1];
    const digits = unit && Math.abs(value) < 100 ? 1 : 0;
    return `${value.toFixed(digits)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
  });
  const milliseconds = known((value) => {
    const ms = value * 1000;
    return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
  });
  const age = known((value) => {
    const s = Math.max(0, Math.floor(value));
    if (s < 120) return `${s} s`;
    if (s < 7200) return `${Math.floor(s / 60)} min`;
    if (s < 172_800) return `${Math.floor(s / 3600)} h`;
    return `${Math.floor(s / 86_400)} d`;
  });
  const say = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

  // What is shown.

  const tiles = [
    [words.connections, (f) => count(f.now.connections)],
    [words.websockets, (f) => count(f.now.websockets)],
    [words.messages_in, (f) => rate(f.now.messages_in)],
    [words.messages_out, (f) => rate(f.now.messages_out)],
    [words.requests, (f) => rate(f.now.requests)],
    [words.handshakes, (f) => rate(f.now.handshakes)],
    [words.refused_rate, (f) => rate(f.now.refused)],
    [words.lag, (f) => milliseconds(f.now.lag_s), (f) => f.now.lag_s > 0.1],
    [words.cpu, (f) => share(f.now.cpu)],
    [words.memory, (f) => bytes(f.now.rss_bytes)],
  ].map(([label, value, alarm]) => {
    const tile = document.createElement("div");
    const term = document.createElement("dt");
    const shown = document.createElement("dd");
    term.textContent = label;
    shown.textContent = none;
    tile.append(term, shown);
    at("tiles").append(tile);
    return (figures) => {
      shown.textContent = value(figures);
      tile.classList.toggle("hr-alarm", Boolean(alarm?.(figures)));
    };
  });

  const series = (label, value, format) => ({ label, value, format });
  const plots = new Plots(at("plots"), [
    { title: words.connections, least: 4, whole: true, series: [
      series(words.websockets, (f) => f.now.websockets, count),
      series(words.http, (f) => f.now.http, count),
    ] },
    { title: words.messages_a_second, least: 1, series: [
      series(words.in, (f) => f.now.messages_in, rate),
      series(words.out, (f) => f.now.messages_out, rate),
    ] },
    { title: words.bytes_a_second, least: 1024, binary: true, series: [
      series(words.in, (f) => f.now.bytes_in, bytes),
      series(words.out, (f) => f.now.bytes_out, bytes),
    ] },
    { title: words.asked_a_second, least: 1, series: [
      series(words.requests_plot, (f) => f.now.requests, rate),
      series(words.handshakes_plot, (f) => f.now.handshakes, rate),
      series(words.refused_plot, (f) => f.now.refused, rate),
    ] },
    { title: words.lag, least: 0.01, series: [series(words.longest, (f) => f.now.lag_s, milliseconds)] },
    { title: words.cpu, least: 0.1, series: [series(words.all_workers, (f) => f.now.cpu, share)] },
  ]);

  const column = (label, value, kind = "number", sort) => ({ label, value, kind, sort });
  const table = (id, caption, identity, columns, more = {}) =>
    new Table(at(id), { caption, identity, columns, none: words.nothing, ...more });

  const workers = table("workers", words.workers, (row) => row.pid, [
    column(words.worker, (row) => {
      const name = String(row.worker ?? none);
      return row.stage && row.stage !== "serving" ? `${name} (${words.stages[row.stage] ?? row.stage})` : name;
    }, ""),
    column(words.pid, (row) => String(row.pid)),
    column(words.age, (row) => age(row.age_s)),
    column(words.connections, (row) => count(row.connections)),
    column(words.cpu, (row) => share(row.cpu)),
    column(words.memory, (row) => bytes(row.rss_bytes)),
    column(words.descriptors, (row) => count(row.descriptors)),
    column(words.tasks, (row) => count(row.tasks)),
    column(words.threads, (row) => count(row.threads)),
    column(words.lag, (row) => milliseconds(row.lag_s)),
    column(words.restarts, (row) => count(row.restarts)),
  ]);
  const groups = table("groups", words.groups, (row) => row.name, [
    column(words.group, (row) => row.name, "text"),
    column(words.members, (row) => count(row.members)),
  ]);
  const handlers = table("handlers", words.handlers, (row) => `${row.consumer} ${row.handler}`, [
    column(words.handler, (row) => `${row.consumer.split(".").at(-1)}.${row.handler}`, "text"),
    column(words.calls, (row) => count(row.calls)),
    column(words.mean, (row) => milliseconds(row.mean_s)),
    column(words.longest, (row) => milliseconds(row.longest_s)),
  ]);
  const counted = (id, caption, label) =>
    table(id, caption, (row) => row.name, [
      column(label, (row) => row.name, "text"),
      column(words.total, (row) => count(row.total)),
      column(words.per_second, (row) => rate(row.rate)),
    ]);
  const refused = counted("refused", words.refused, words.reason);
  const dropped = counted("dropped", words.dropped, words.policy);
  const threads = table("threads", words.threads, (row) => row.name, [
    column(words.figure, (row) => row.name, "text"),
    column(words.value, (row) => (row.name.includes("seconds") ? milliseconds(row.value) : count(row.value))),
  ]);
  const counters = table("counters", words.counters, (row) => `${row.name} ${row.labels}`, [
    column(words.name, (row) => row.name, "text"),
    column(words.labels, (row) => row.labels, "text"),
    column(words.value, (row) => short.format(row.value)),
    column(words.per_second, (row) => rate(row.rate)),
  ]);

  const view = { search: "", sort: "since", descending: true, page: 1 };
  const closeButton = (row) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button hr-close";
    button.textContent = words.close;
    button.setAttribute("aria-label", say(words.close_which, { connection: row.id }));
    button.addEventListener("click", () => closing.open(row));
    return button;
  };
  const connections = table("connections", words.connections, (row) => row.id, [
    column(words.id, (row) => row.id, "text", "id"),
    column(words.protocol, (row) => row.protocol ?? "", "text", "protocol"),
    column(words.peer, (row) => row.peer ?? "", "text", "peer"),
    column(words.path, (row) => row.path ?? "", "text", "path"),
    column(words.user, (row) => row.user ?? "", "text", "user"),
    column(words.consumer, (row) => row.consumer ?? "", "text", "consumer"),
    column(words.age, (row) => age(row.age_s), "number", "since"),
    column(words.received, (row) => bytes(row.received), "number", "received"),
    column(words.sent, (row) => bytes(row.sent), "number", "sent"),
    column(words.inbox, (row) => count(row.inbox), "number", "inbox"),
    column(words.waiting, (row) => bytes(row.outbox_bytes), "number", "outbox_bytes"),
    ...(mayClose ? [{ label: words.close, kind: "action", make: closeButton }] : []),
  ], {
    onSort: (by) => {
      view.descending = view.sort === by ? !view.descending : !["id", "protocol", "peer", "path", "user", "consumer"].includes(by);
      view.sort = by;
      view.page = 1;
      ask();
    },
  });

  // The table of connections.

  const ask = () => send({ type: "table", ...view });
  const search = at("search");
  let typing;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      Object.assign(view, { search: search.value, page: 1 });
      ask();
    }, 200);
  });
  at("find").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(typing);
    Object.assign(view, { search: search.value, page: 1 });
    ask();
  });
  at("previous").addEventListener("click", () => {
    view.page = Math.max(1, view.page - 1);
    ask();
  });
  at("next").addEventListener("click", () => {
    view.page += 1;
    ask();
  });

  const showConnections = (message) => {
    connections.show(message.rows);
    connections.sorted(message.sort, message.descending);
    view.page = message.page;
    at("place").textContent = say(message.partial ? words.place_partial : words.place, {
      page: whole.format(message.page),
      pages: whole.format(message.pages),
      matching: whole.format(message.matching),
      listed: whole.format(message.listed),
    });
    at("previous").disabled = message.page <= 1;
    at("next").disabled = message.page >= message.pages;
  };

  const tell = (text, kind = "") => {
    at("said").textContent = text;
    at("said").dataset.kind = kind;
  };

  // Closing one of them.

  const closing = {
    row: null,
    open(row) {
      this.row = row;
      at("closing-which").textContent = [row.id, row.peer, row.path, row.user].filter(Boolean).join(" · ");
      at("code").value = "1001";
      at("reason").value = "";
      this.choose();
      at("closing").showModal();
    },
    choose() {
      const own = at("code").value === "own";
      at("own-code-row").hidden = !own;
      at("own-code").disabled = !own;
    },
  };
  at("code").addEventListener("change", () => closing.choose());
  at("closing").addEventListener("close", () => {
    if (at("closing").returnValue === "close" && closing.row) {
      const code = Number(at("code").value === "own" ? at("own-code").value : at("code").value);
      send({ type: "close", connection: closing.row.id, code, reason: at("reason").value });
      tell(say(words.closing, { connection: closing.row.id }));
    }
    at("closing").returnValue = "";
    closing.row = null;
  });

  // The WebSocket.

  let socket = null;
  let pause = FIRST_PAUSE_MS;
  let everOpened = false;
  let failures = 0;
  let offlineUntil = 0;
  let ticking;

  const state = (kind, text) => {
    if (at("state").dataset.state !== kind || at("state").textContent !== text) {
      at("state").dataset.state = kind;
      at("state").textContent = text;
    }
  };
  const notice = (...paragraphs) => {
    at("notice").replaceChildren(
      ...paragraphs.map((text) => {
        const paragraph = document.createElement("p");
        paragraph.textContent = text;
        return paragraph;
      }),
    );
    at("notice").hidden = !paragraphs.length;
  };

  const send = (message) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  };

  let lastState = words.live;
  const show = (figures) => {
    tiles.forEach((tile) => tile(figures));
    workers.show(figures.workers);
    groups.show(figures.groups);
    handlers.show(figures.handlers);
    refused.show(figures.refused);
    dropped.show(figures.dropped);
    threads.show(figures.pool);
    if (document.querySelector(".hr-all").open) counters.show(figures.counters);
    plots.add(figures);
    plots.draw();
    state("live", lastState);
  };

  const handle = {
    hello(message) {
      everOpened = true;
      failures = 0;
      pause = FIRST_PAUSE_MS;
      lastState = message.mode === "server" ? words.live : words.live_process;
      state("live", lastState);
      if (message.mode === "server") notice();
      else notice(words.no_server);
      at("connections").closest("section").hidden = message.mode !== "server";
      message.history.forEach((figures) => plots.add(figures));
      ask();
    },
    figures: (message) => show(message.figures),
    connections: showConnections,
    trouble(message) {
      state("offline", words.trouble);
      notice(message.text);
    },
    well() {
      notice();
    },
    closed(message) {
      if (message.error) tell(message.error, "error");
      else tell(say(words.closed, { connection: message.connection, code: message.code }));
    },
    error: (message) => tell(message.text, "error"),
  };

  const connect = () => {
    clearInterval(ticking);
    if (!everOpened) state("waiting", words.connecting);
    const url = new URL(page.dataset.socket, location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(url);
    socket.addEventListener("message", (event) => {
      const message = JSON.parse(event.data);
      handle[message.type]?.(message);
    });
    socket.addEventListener("close", (event) => lost(event.code));
  };

  const lost = (code) => {
    socket = null;
    if (code === LOGGED_OUT || code === FORBIDDEN) {
      state("offline", code === LOGGED_OUT ? words.logged_out : words.forbidden);
      return;
    }
    failures += 1;
    if (!everOpened) notice(words.no_socket, words.no_socket_help);
    else if (failures > 3) notice(words.still_offline);
    // Not all at once: everybody who watches was closed in the same moment.
    const wait = pause * (0.5 + Math.random());
    pause = Math.min(LONGEST_PAUSE_MS, pause * 2);
    offlineUntil = Date.now() + wait;
    const tick = () => {
      const left = Math.max(0, Math.ceil((offlineUntil - Date.now()) / 1000));
      state("offline", say(words.offline, { seconds: left }));
    };
    // A screen reader is told once, not each second.
    state("offline", say(words.offline, { seconds: Math.ceil(wait / 1000) }));
    at("state").setAttribute("aria-live", "off");
    ticking = setInterval(tick, 1000);
    setTimeout(() => {
      at("state").removeAttribute("aria-live");
      connect();
    }, wait);
  };

  connect();
})();
