"""What is fuzzed: one function for each parser, which takes bytes and raises where a law is broken.

Rules of this file:

- No crash is the least: each target holds its parser to a law as well. What comes out does not
  depend on how the bytes were cut; two implementations agree; what was read can be written and is
  read again; nothing grows beyond its limit.
- The only exceptions that a parser may raise are the ones that its documentation names.
- The same bytes give the same result: chance comes from the bytes.
"""

import importlib
import importlib.util
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any

from headrace.codecs import decode_event, decode_json, encode_event, encode_json
from headrace.exceptions import ConfigurationError, HandshakeError, RemoteProtocolError
from headrace.layers.local.wire import FrameReader, WireError
from headrace.layers.redis.envelopes import Envelopes
from headrace.protocols import _frames
from headrace.protocols import http2 as h2
from headrace.protocols.deflate import DeflateFactory
from headrace.protocols.extensions import negotiate, parse_offers
from headrace.protocols.handshake import parse_handshake
from headrace.protocols.http1 import (
    BodyReceived,
    Http1Engine,
    Http1Limits,
    Http2Prefaced,
    RequestCompleted,
    RequestFailed,
    RequestReceived,
    State,
)
from headrace.protocols.proxy_protocol import ProxyHeaderParser
from headrace.protocols.websocket import (
    CloseReceived,
    ConnectionFailed,
    Limits,
    WebSocketEngine,
)
from headrace.protocols.websocket import State as WebSocketState
from headrace.server.control import ControlError, Frames, encode
from headrace.server.endpoint import Endpoint
from headrace.server.proxy import ProxyHeaders

__all__ = ["TARGETS", "Target"]

Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {}


def target(function: Target) -> Target:
    TARGETS[function.__name__] = function
    return function


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """The bytes one by one, if they are few, and cut at places that they choose themselves."""
    if len(data) <= 400:
        yield [data[index : index + 1] for index in range(len(data))]
    chance = zlib.crc32(data)
    places = sorted(chance * step % (len(data) + 1) for step in (1, 3, 7, 31))
    yield [data[start:stop] for start, stop in pairwise([0, *places, len(data)])]


def require(holds: object, law: str) -> None:
    """An assertion that ``-O`` does not take away."""
    if not holds:
        raise AssertionError(law)


# --- HTTP/1.1 -------------------------------------------------------------------------------------

SMALL = Http1Limits(
    request_line_bytes=60,
    field_bytes=60,
    header_bytes=200,
    header_count=6,
    body_bytes=64,
    chunk_line_bytes=12,
    chunk_extension_bytes=16,
    trailer_bytes=30,
)


def converse(pieces: list[bytes], limits: Http1Limits, most: int = 64) -> tuple[Any, ...]:
    """Answer each request once it is complete; give what was said, bodies joined, and sent."""
    engine = Http1Engine(limits, now=0.0)
    said: list[Any] = []
    sent = b""
    for piece in [*pieces, None]:
        if engine.state is State.CLOSED:
            break
        events = (
            engine.receive(piece, 0.0, max_events=most)
            if piece is not None
            else engine.receive_eof(0.0)
        )
        while True:
            for event in events:
                if isinstance(event, BodyReceived):
                    if said and isinstance(said[-1], bytes):
                        said[-1] += event.data
                    else:
                        said.append(event.data)
                    continue
                said.append(event)
                if isinstance(event, Http2Prefaced):  # from here on it is another engine's
                    return said, sent, engine.state
                if isinstance(event, RequestCompleted):
                    engine.send_response(200, [])
                    engine.send_body(b"yes")
            sent += engine.data_to_send()
            if not engine.has_unread or engine.state is State.CLOSED:
                break
            events = engine.receive(b"", 0.0, max_events=most)
    if said and isinstance(said[-1], RequestFailed):
        require(engine.state is State.CLOSED, "a request that failed is the last")
    return said, sent, engine.state


def check_requests(said: list[Any], limits: Http1Limits) -> None:
    body = 0
    for event in said:
        if isinstance(event, RequestReceived):
            body = 0
            size = sum(len(name) + len(value) for name, value in event.headers)
            require(size <= limits.header_bytes, "header bytes beyond the limit")
            require(len(event.headers) <= limits.header_count + 1, "headers beyond the limit")
            hosts = [value for name, value in event.headers if name == b"host"]
            require(len(hosts) == 1 or event.http_version == "1.0", "one Host")
            for name, value in event.headers:
                require(name == name.lower() and name, "names are in lower case")
                require(not set(value) & {0, 10, 13}, "a line break in a value")
        elif isinstance(event, bytes):
            body += len(event)
            require(body <= (limits.body_bytes or body), "a body beyond the limit")


@target
def http1(data: bytes) -> None:
    """The engine: events don't depend on the cut, limits hold."""
    for limits in (SMALL, Http1Limits()):
        whole = converse([data], limits)
        check_requests(whole[0], limits)
        for pieces in cuts(data):
            require(converse(pieces, limits) == whole, "the events depend on the cut")
        require(converse([data], limits, most=1) == whole, "the events depend on their number")


@target
def http1_chunks(data: bytes) -> None:
    """A chunked body: the same laws, and h11 reads the same where both accept it."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    for limits in (SMALL, Http1Limits()):
        whole = converse([head + data], limits)
        for pieces in cuts(data):
            require(converse([head, *pieces], limits) == whole, "the body depends on the cut")
    said = whole[0]
    if len(said) > 1 and RequestCompleted in map(type, said):
        body = said[1] if isinstance(said[1], bytes) else b""
        theirs = h11_body(head + data)
        require(theirs is None or theirs == body, f"h11 has read {theirs!r}, not {body!r}")


def h11_body(raw: bytes) -> bytes | None:
    """What h11 reads; None: it accepts less."""
    import h11

    peer = h11.Connection(h11.SERVER)
    peer.receive_data(raw)
    body = b""
    try:
        while not isinstance(event := peer.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += event.data
            elif event is h11.NEED_DATA:
                return None
    except h11.RemoteProtocolError:
        return None
    return body


@target
def http1_smuggled(data: bytes) -> None:
    """Where h11 and the engine both accept a stream, both see the same requests."""
    import h11

    said = converse([data], Http1Limits())[0]
    ours = [(event.method, event.target) for event in said if isinstance(event, RequestReceived)]
    if any(isinstance(event, RequestFailed | Http2Prefaced) for event in said) or not ours:
        return
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data)
    theirs = []
    try:
        while peer.their_state is not h11.MUST_CLOSE and (
            (event := peer.next_event()) is not h11.NEED_DATA
        ):
            if isinstance(event, h11.Request):
                theirs.append((event.method.decode(), event.target))
            elif isinstance(event, h11.EndOfMessage):
                peer.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                peer.send(h11.EndOfMessage())
                if peer.our_state is not h11.DONE:
                    break
                peer.start_next_cycle()
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                break
    except h11.RemoteProtocolError:
        return  # what another server refuses is no disagreement about what it means
    shorter = min(len(ours), len(theirs))
    require(ours[:shorter] == theirs[:shorter], f"{ours} here, {theirs} there")


# --- HTTP/2 ---------------------------------------------------------------------------------------

HTTP2 = h2.Http2Limits(
    streams=8,
    resets=6,
    settings_frames=6,
    pings=6,
    priorities=6,
    window_updates=6,
    empty_frames=6,
    continuations=4,
)
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


def streams(pieces: list[bytes]) -> tuple[Any, ...]:
    """What is heard of each stream, and how the connection ended, if it did."""
    engine = h2.Http2Engine(HTTP2, SMALL, now=0.0)
    heard: dict[int, list[Any]] = {}
    failure = None
    for piece in pieces:
        events = engine.receive(piece, 0.0)
        while True:
            for event in events:
                require(failure is None, "a failure is the last event")
                if isinstance(event, h2.ConnectionFailed):
                    failure = event.code
                    continue
                story = heard.setdefault(event.stream.id, [])
                match event:
                    case h2.StreamOpened():
                        story.append((event.request, event.protocol))
                    case h2.DataReceived():
                        if not (story and isinstance(story[-1], bytes)):
                            story.append(b"")
                        story[-1] += event.data
                        engine.consumed(event.stream, len(event.data))
                    case h2.StreamEnded():
                        story.append("ended")
                    case h2.StreamReset():
                        story.append(("reset", event.code, event.by_client))
                    case h2.RequestRefused():
                        story.append(("refused", event.status))
            if not engine.has_unread:
                break
            events = engine.receive(b"", 0.0)
    require(engine.closed or failure is None, "closed where it failed")
    require(engine.streams <= HTTP2.streams, "more streams than are allowed")
    engine.pump(1 << 16, 0.0)
    whole_frames(engine.data_to_send())
    return heard, failure


def whole_frames(output: bytes) -> None:
    """What is sent is frames, of a kind and a length that there are."""
    at = 0
    while at < len(output):
        require(output[at + 3] <= 9, "a frame of a known kind")
        length = int.from_bytes(output[at : at + 3])
        require(length <= 16_384, "a frame of the least size that all must take")
        at += 9 + length
    require(at == len(output), "whole frames")


@target
def http2(data: bytes) -> None:
    """Frames: what is heard of each stream does not depend on the cut; what is sent is whole."""
    if not data.startswith(b"PRI"):
        data = h2.PREFACE + SETTINGS + data
    whole = streams([data])
    for pieces in cuts(data):
        require(streams(pieces) == whole, "what is heard depends on the cut")


# --- WebSocket ------------------------------------------------------------------------------------

WEBSOCKET = Limits(message_bytes=100, frame_bytes=80, fragments=6)


def leaves() -> list[ModuleType]:
    """The plain source, and the compiled one where there is one."""
    compiled = "headrace.protocols._frames_compiled"
    found: list[ModuleType] = [_frames]
    if importlib.util.find_spec(compiled):
        found.append(importlib.import_module(compiled))
    return found


LEAVES = leaves()


@target
def frames(data: bytes) -> None:
    """The leaf: both builds agree about any bytes."""
    limit, at = (data[0], data[1] % 8) if len(data) > 1 else (0, 0)
    data = data[2:]
    mask = (data[:4] + bytes(4))[:4] * 2  # so that four of its bytes begin anywhere
    results = []
    for leaf in LEAVES:
        try:
            header: Any = leaf.read_header(data, min(at, len(data)))
        except RemoteProtocolError as error:
            header = str(error)
        events: list[Any] = []
        end = leaf.read_messages(data, min(at, len(data)), limit, events, 8)
        results.append((
            header,
            end,
            events,
            leaf.unmask(data, 0, len(data), mask, at & 3),
            leaf.encode_frame(0x80 | (at & 0xF), data),
        ))  # fmt: skip
    require(all(result == results[0] for result in results), "the builds disagree")
    unmasked = LEAVES[0].unmask(data, 0, len(data), mask, at & 3)
    require(LEAVES[0].unmask(unmasked, 0, len(data), mask, at & 3) == data, "a mask undoes itself")


def hear(pieces: list[bytes], extensions: tuple[Any, ...], most: int = 64) -> tuple[Any, ...]:
    engine = WebSocketEngine(0.0, limits=WEBSOCKET, extensions=extensions)
    events: list[Any] = []
    for piece in pieces:
        events += engine.receive(piece, 0.0, max_events=most)
        while engine.has_unread:
            events += engine.receive(b"", 0.0, max_events=most)
    return events, engine.data_to_send(), engine.state, engine.close_code


def deflate() -> tuple[Any, ...]:
    chosen = negotiate(parse_offers("permessage-deflate"), [DeflateFactory()])
    return tuple(chosen)


def check_messages(events: list[Any], output: bytes, state: Any) -> None:
    ends = [event for event in events if isinstance(event, CloseReceived | ConnectionFailed)]
    require(len(ends) == (state is WebSocketState.CLOSED), "one end, where it is closed")
    require(ends == events[len(events) - len(ends) :], "nothing comes after the end")
    for event in events:
        if isinstance(event, str | bytes):
            size = len(event.encode() if isinstance(event, str) else event)
            require(size <= WEBSOCKET.message_bytes, "a message beyond the limit")


@target
def websocket(data: bytes) -> None:
    """The engine: events don't depend on the cut, there is one end, limits hold."""
    whole = hear([data], ())
    check_messages(whole[0], whole[1], whole[2])
    for pieces in cuts(data):
        require(hear(pieces, ()) == whole, "the events depend on the cut")
    require(hear([data], (), most=1) == whole, "the events depend on their number")


@target
def websocket_deflate(data: bytes) -> None:
    """The engine with permessage-deflate: the same laws, but for which of two faults is told."""
    whole = hear([data], deflate())
    check_messages(whole[0], whole[1], whole[2])
    for pieces in cuts(data):
        found = hear(pieces, deflate())
        # zlib says that there is a fault, and not what came before it in the same piece: bytes
        # that are wrong in two ways may fail for either.
        require(told(found) == told(whole), "the events depend on the cut")


def told(heard: tuple[Any, ...]) -> tuple[Any, ...]:
    events, _, state, _ = heard
    return [event for event in events if not isinstance(event, ConnectionFailed)], state


@target
def inflate(data: bytes) -> None:
    """The decoder alone: never beyond its limit, whatever comes."""
    [decoder] = deflate()
    limit = data[0] if data else 0
    try:
        found = decoder.decode(data[1:], limit_bytes=limit, final=True)
    except RemoteProtocolError:
        return
    require(len(found) <= limit, "inflated beyond the limit")


@target
def extension_header(data: bytes) -> None:
    """Sec-WebSocket-Extensions: an offer is read or refused, and any agreement can be kept."""
    value = data.decode("latin-1")
    try:
        offers = parse_offers(value)
    except HandshakeError:
        return
    for agreed in negotiate(offers, [DeflateFactory()]):
        frame = agreed.encode(b"hello" * 20)
        if frame is not None:
            require(len(frame) < 100, "what repeats becomes shorter")


@target
def handshake(data: bytes) -> None:
    """The handshake's headers: read or refused; what is answered has no header but ours."""
    lines = [line.partition(b":") for line in data.split(b"\n")]
    headers = [(name.strip().lower(), value.strip()) for name, _, value in lines]
    headers += [
        (b"host", b"a"),
        (b"upgrade", b"websocket"),
        (b"connection", b"upgrade"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ][: 0 if data.startswith(b"!") else 5]
    try:
        request = parse_handshake("GET", "1.1", headers)
    except HandshakeError as error:
        require(400 <= error.status < 500, "the client's mistake has the client's status")
        require(str(error).isascii() and str(error).isprintable(), "a reason is one plain line")
        return
    subprotocol = request.subprotocols[0] if request.subprotocols else None
    answer, _ = request.accept(subprotocol=subprotocol, headers=[], extensions=[DeflateFactory()])
    require(answer.startswith(b"HTTP/1.1 101 ") and answer.endswith(b"\r\n\r\n"), "a whole answer")
    names = [line.partition(b":")[0].lower() for line in answer.split(b"\r\n")[1:-2]]
    ours = {b"upgrade", b"connection"}
    require(all(name.startswith(b"sec-websocket-") or name in ours for name in names), "ours only")


# --- who the client is ----------------------------------------------------------------------------


def proxied(pieces: list[bytes]) -> tuple[Any, ...]:
    parser, taken = ProxyHeaderParser(), 0
    try:
        for piece in pieces:
            while piece and parser.header is None:
                count = parser.receive(piece)
                taken += count
                piece = piece[count:]
                if not count:
                    break
    except RemoteProtocolError:
        # That it is an error is told at the first byte that says so; in which words, later ones
        # may say.
        return ("error",)
    return parser.header, taken


@target
def proxy_protocol(data: bytes) -> None:
    """A PROXY header: the same however it is cut, and not a byte more is taken."""
    whole = proxied([data])
    for pieces in cuts(data):
        require(proxied(pieces) == whole, "what is read depends on the cut")
    if len(whole) == 2 and whole[0] is not None:
        require(proxied([data[: whole[1]]]) == whole, "it needs what it does not take")
        require(proxied([data[: whole[1] - 1]])[0] is None, "it was complete before its end")


@target
def forwarded(data: bytes) -> None:
    """X-Forwarded-*: an address and a scheme, or those of the connection."""
    names = [b"x-forwarded-for", b"x-forwarded-port", b"x-forwarded-proto"]
    headers = [(names[i % 3], value) for i, value in enumerate(data.split(b"\n"))]
    proxy = ProxyHeaders(trusted=["10.0.0.0/8"])
    client, scheme = proxy.origin(headers, ("127.0.0.1", 5))
    require(scheme in {"http", "https", "ws", "wss"}, "a scheme of HTTP")
    require(client is not None and 0 <= (client[1] or 0) < 65536, "a port")
    stranger = ("203.0.113.9", 5)
    require(proxy.origin(headers, stranger)[0] == stranger, "nobody else is believed")


@target
def endpoint(data: bytes) -> None:
    """The words of Twisted: a place to listen, or an error that says what is wrong."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    try:
        Endpoint.from_twisted(text)
    except ConfigurationError as error:
        require(str(error), "an error says something")


# --- between processes ----------------------------------------------------------------------------


def local_frames(pieces: list[bytes]) -> tuple[Any, ...]:
    reader, found = FrameReader(64), []
    try:
        for piece in pieces:
            found += reader.receive(piece)
    except WireError as error:
        # Frames that came in the same read as the error are lost with their connection.
        return "error", str(error), reader.process
    return found, reader.amid, reader.process, reader.connection


@target
def local_wire(data: bytes) -> None:
    """Frames of the local layer: the same however they are cut."""
    whole = local_frames([data])
    for pieces in cuts(data):
        require(local_frames(pieces) == whole, "the frames depend on the cut")


PLAIN = Envelopes("0123456789abcdef")
SEALED = Envelopes("0123456789abcdef", (b"a key",))


@target
def envelopes(data: bytes) -> None:
    """Envelopes of the Redis layer: nothing that was not sealed is opened with a key."""
    try:
        found = PLAIN.open(data)
    except ValueError:
        pass
    else:
        again = PLAIN.open(PLAIN.put(int.from_bytes(found.sender[8:]), found.number, found.frame))
        require(again[1:] == found[1:], "an envelope holds what was put in")
    for read in (lambda: SEALED.open(data), lambda: SEALED.open_item("a", data)):
        try:
            read()
        except ValueError:
            continue
        raise AssertionError("opened without the key")


@target
def event(data: bytes) -> None:
    """Events: what is read can be written, and is read again as the same."""
    try:
        value = decode_event(data)
    except ValueError:
        return
    try:
        written = encode_event(value)
    except TypeError as error:
        require("recursion" in str(error), "only depth keeps from writing what was read")
        return
    again = decode_event(written)
    require(repr(again) == repr(value), f"{value!r} came back as {again!r}")


@target
def json(data: bytes) -> None:
    """JSON from clients: a value or a JSONDecodeError; what was read can be written."""
    for text in (data, data.decode(errors="surrogateescape")):
        try:
            value = decode_json(text)
        except ValueError:
            continue
        decode_json(encode_json(value))


def control_messages(pieces: list[bytes]) -> tuple[Any, ...]:
    reader, found = Frames(), []
    try:
        for piece in pieces:
            found += reader.feed(piece)
    except ControlError as error:
        return "error", str(error)
    return (found,)


@target
def control(data: bytes) -> None:
    """Frames of the control link: the same however they are cut; all are maps."""
    whole = control_messages([data])
    for pieces in cuts(data):
        require(repr(control_messages(pieces)) == repr(whole), "the messages depend on the cut")
    for message in whole[0] if len(whole) == 1 else ():
        require(isinstance(message, dict), "a message is a map")
        encode(message)
