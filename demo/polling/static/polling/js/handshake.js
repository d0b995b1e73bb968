// The handshake as the server saw it, and frames byte by byte (RFC 6455 §5.2).

const OPCODES = { 0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong" };
const SHOWN_BYTES = 24;

export class Handshake {
  #root;

  constructor(root) {
    this.#root = root;
  }

  show({ http_version, path, request, request_bytes, answer, answer_bytes, accept, extensions }) {
    for (const node of this.#root.querySelectorAll("[data-handshake]")) {
      node.hidden = node.dataset.handshake === "none";
    }
    const first = accept ? `GET ${path} HTTP/${http_version}` : `CONNECT ${path} (HTTP/2)`;
    this.#fill("request", [first, ...request.map(lined)].join("\n"));
    const status = accept ? "HTTP/1.1 101 Switching Protocols" : "200 (HTTP/2)";
    this.#fill("answer", [status, ...answer.map(lined)].join("\n"));
    this.#fill("request-bytes", interpolate(gettext("%s bytes"), [request_bytes]));
    this.#fill("answer-bytes", interpolate(gettext("%s bytes"), [answer_bytes]));
    for (const name of ["key", "guid", "sha1", "accept"]) this.#fill(name, accept?.[name] ?? "–");
    this.#fill("extensions", extensions || gettext("none"));
  }

  showExtensions(text) {
    this.#fill("browser-extensions", text || gettext("none"));
  }

  #fill(slot, text) {
    this.#root.querySelector(`[data-slot=${slot}]`).textContent = text;
  }
}

const lined = ([name, value]) => `${name}: ${value}`;

// Returns the rows of a frame, each its bytes in hexadecimal and what they mean.
export function dissect({ bytes, text, wire_bytes }) {
  if (bytes === null) {
    return [["…", interpolate(gettext("%s bytes, which can't be told apart"), [wire_bytes])]];
  }
  const pairs = bytes.match(/../g);
  const rows = [];
  const take = (count) => pairs.splice(0, count);
  const [first] = take(1);
  const head = parseInt(first, 16);
  const opcode = head & 0x0f;
  const ending = head & 0x80 ? gettext("FIN: the message ends here") : gettext("more follows");
  const isCompressed = Boolean(head & 0x40);
  const compressed = isCompressed ? `; ${gettext("RSV1: compressed")}` : "";
  const kind = interpolate(gettext("opcode %s"), [opcode]);
  rows.push([first, `${ending}${compressed}; ${kind}: ${OPCODES[opcode] ?? "?"}`]);
  const [second] = take(1);
  const isMasked = Boolean(parseInt(second, 16) & 0x80);
  const short = parseInt(second, 16) & 0x7f;
  const masked = isMasked ? gettext("masked") : gettext("not masked");
  if (short < 126) {
    rows.push([second, `${masked}; ${interpolate(gettext("payload of %s bytes"), [short])}`]);
  } else {
    rows.push([second, `${masked}; ${gettext("the length follows")}`]);
    const long = take(short === 126 ? 2 : 8);
    const length = parseInt(long.join(""), 16);
    rows.push([long.join(" "), interpolate(gettext("payload of %s bytes"), [length])]);
  }
  if (isMasked) rows.push([take(4).join(" "), gettext("the mask, which your browser alone knows")]);
  const shown = pairs.slice(0, SHOWN_BYTES).join(" ");
  const meaning = isCompressed ? interpolate(gettext("compressed: %s"), [text]) : text;
  rows.push([pairs.length > SHOWN_BYTES ? `${shown} …` : shown, meaning]);
  return rows;
}

export function showFrame(root, frame) {
  root.querySelector("[data-slot=none]").hidden = true;
  root.querySelector(".scroll").hidden = false;
  const rows = dissect(frame).map(([bytes, meaning]) => {
    const row = document.createElement("tr");
    const code = document.createElement("code");
    code.textContent = bytes;
    const cells = [document.createElement("td"), document.createElement("td")];
    cells[0].append(code);
    cells[1].textContent = meaning;
    row.append(...cells);
    return row;
  });
  root.querySelector("tbody").replaceChildren(...rows);
}
