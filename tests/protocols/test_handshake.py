import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.uri import parse_uri

from headrace.exceptions import HandshakeError, LocalProtocolError
from headrace.protocols.deflate import DeflateFactory
from headrace.protocols.handshake import HandshakeRequest, parse_handshake
from headrace.protocols.websocket import WebSocketEngine

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = {
    b"host": b"example.com",
    b"upgrade": b"websocket",
    b"connection": b"Upgrade",
    b"sec-websocket-key": KEY,
    b"sec-websocket-version": b"13",
}


def headers(changes=(), /):
    """Return the headers of a good request, with some replaced; None leaves one out.

    A list of values stands for as many lines.
    """
    lines = []
    for name, value in {**REQUEST, **dict(changes)}.items():
        values = [] if value is None else value if isinstance(value, list) else [value]
        lines += [(name, each) for each in values]
    return lines


def check(changes=(), /, method="GET", http_version="1.1"):
    return parse_handshake(method, http_version, headers(changes))


def refused(changes=(), /, **request) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        check(changes, **request)
    return caught.value


class TestUpgrade:
    def test_a_good_request(self):
        assert check() == HandshakeRequest(KEY, [], [])

    def test_what_was_judged_before_is_judged_the_same_for_each(self):
        offer = {
            b"sec-websocket-protocol": b"known",
            b"sec-websocket-extensions": b"permessage-deflate",
        }
        first, second = check(offer), check(offer | {b"sec-websocket-key": b"B" * 22 + b"=="})
        assert (first.key, second.key) == (KEY, b"B" * 22 + b"==")
        assert first.accept()[0] != second.accept()[0]
        first.subprotocols.clear()  # the scope's, with which an application may do as it likes
        first.offers.clear()
        assert check(offer) == HandshakeRequest(KEY, second.subprotocols, second.offers)
        assert second.subprotocols == ["known"]
        long = {b"sec-websocket-protocol": b"p" * 2000}
        assert check(long) == check(long)

    @pytest.mark.parametrize("method", ["POST", "HEAD", "get", "CONNECT", "G\x1b[31m\u20ac" * 9])
    def test_the_method_is_get(self, method):
        error = refused(method=method)
        assert error.status == 405
        assert error.headers == ((b"allow", b"GET"),)
        assert str(error).isascii()
        assert str(error).isprintable()

    @pytest.mark.parametrize("http_version", ["1.0", "0.9", ""])
    def test_the_version_of_http_is_1_1(self, http_version):
        assert "send HTTP/1.1" in str(refused(http_version=http_version))

    @pytest.mark.parametrize("host", [None, [b"a", b"a"]])
    def test_host_stands_exactly_once(self, host):
        assert "Host" in str(refused({b"host": host}))

    @pytest.mark.parametrize("value", [b"WebSocket", b"h2c, websocket", b"h2c,\t WEBSOCKET ,x/1"])
    def test_upgrade_is_a_list_without_case(self, value):
        check({b"upgrade": value})

    @pytest.mark.parametrize("value", [None, b"", b"h2c", b"websockets", b"web socket", b"\xff"])
    def test_upgrade_names_websocket(self, value):
        error = refused({b"upgrade": value})
        assert error.status == 426
        assert (b"upgrade", b"websocket") in error.headers

    @pytest.mark.parametrize(
        "value", [b"upgrade", b"keep-alive, Upgrade", b" UPGRADE\t,close", [b"close", b"Upgrade"]]
    )
    def test_connection_is_a_list_over_several_lines_without_case(self, value):
        check({b"connection": value})

    @pytest.mark.parametrize("value", [None, b"", b"keep-alive", b"upgraded", b"up, grade"])
    def test_connection_names_upgrade(self, value):
        error = refused({b"connection": value})
        assert error.status == 400
        assert "send Connection: Upgrade" in str(error)

    @pytest.mark.parametrize(
        "value",
        [
            None,
            b"",
            b"dGhlIHNhbXBsZSBub25jZQ",  # without padding
            b"dGhlIHNhbXBsZSBub25jZ===",
            b"dGhlIHNhbXBsZSBub25j",  # 15 bytes
            b"dGhlIHNhbXBsZSBub25jZTE=",  # 17 bytes
            b"dGhl IHNhbXBsZSBub25jQ==",
            b"dGhlIHNhbXBsZSBub25j\xff\xff==",
            b"dGhlIHNhbXBsZSBub25jZQ==\n",
            b"dGhlIHNhbXBsZSBub25_-Q==",  # the other alphabet
            [KEY, KEY],
            [KEY, b"AAAAAAAAAAAAAAAAAAAAAA=="],
        ],
    )
    def test_the_key_is_16_bytes_and_stands_once(self, value):
        error = refused({b"sec-websocket-key": value})
        assert error.status == 400
        assert "16 random bytes in base64" in str(error)


class TestVersion:
    @pytest.mark.parametrize("value", [None, b"8", b"14", b"013", b"", b"13, 8", [b"13", b"13"]])
    def test_another_version_is_told_ours(self, value):
        error = refused({b"sec-websocket-version": value})
        assert error.status == 426
        assert (b"sec-websocket-version", b"13") in error.headers


class TestSubprotocols:
    def test_none(self):
        assert check().subprotocols == []

    def test_in_order_over_several_lines(self):
        request = check({b"sec-websocket-protocol": [b"chat, v2.chat", b"", b"\tv1.chat ,,"]})
        assert request.subprotocols == ["chat", "v2.chat", "v1.chat"]

    @pytest.mark.parametrize(
        "value", [b"", b",", b"a b", b"a;b", b'"a"', b"a/b", b"a\x00", b"a\x0b", b"@"]
    )
    def test_each_is_a_token(self, value):
        error = refused({b"sec-websocket-protocol": value})
        assert error.status == 400
        assert "Sec-WebSocket-Protocol header is malformed" in str(error)

    def test_non_ascii_is_refused_in_plain_ascii(self):
        # daphne answers 500, hypercorn closes without a word, granian's worker died of it.
        for value in ("café".encode(), "café".encode("latin-1"), b"\x80", b"chat, \xff"):
            error = refused({b"sec-websocket-protocol": value})
            assert error.status == 400
            assert str(error).isascii()

    @pytest.mark.parametrize("value", [b"chat,chat", [b"chat, x", b"chat"]])
    def test_none_stands_twice(self, value):
        assert "repeats" in str(refused({b"sec-websocket-protocol": value}))


class TestExtensions:
    def test_offers_come_from_several_lines(self):
        request = check({b"sec-websocket-extensions": [b"a; x=1", b"b, c"]})
        assert [offer.name for offer in request.offers] == ["a", "b", "c"]

    @pytest.mark.parametrize("value", [b"", b"a b", b"a; =", b"a; x=\xff", b"caf\xe9"])
    def test_a_malformed_header_is_refused(self, value):
        error = refused({b"sec-websocket-extensions": value})
        assert error.status == 400
        assert str(error).isascii()

    def test_a_malformed_offer_of_deflate_is_only_declined(self):
        offers = b"permessage-deflate; server_max_window_bits=99, permessage-deflate; x=y"
        request = check({b"sec-websocket-extensions": offers})
        assert request.accept(extensions=[DeflateFactory()])[1] == ()


class TestControlCharacters:
    @pytest.mark.parametrize("byte", [0x00, 0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0x85])
    @pytest.mark.parametrize(
        "name",
        [
            b"upgrade",
            b"connection",
            b"sec-websocket-key",
            b"sec-websocket-version",
            b"sec-websocket-protocol",
            b"sec-websocket-extensions",
        ],
    )
    def test_they_separate_nothing(self, name, byte):
        # daphne split header blocks with splitlines(), which cuts at each of these.
        good = REQUEST.get(name, b"chat")
        assert refused({name: good + bytes((byte,))}).status in (400, 426)
        assert refused({name: b"x" + bytes((byte,)) + good}).status in (400, 426)


class TestExtendedConnect:
    """RFC 8441: HTTP/2 and later replace what only HTTP/1.1 has."""

    def parse(self, method="CONNECT", version="2", **changes):
        lines = [(b"sec-websocket-version", b"13"), (b"sec-websocket-protocol", b"chat")]
        return parse_handshake(method, version, lines)

    @pytest.mark.parametrize("version", ["2", "3"])
    def test_needs_neither_key_nor_upgrade(self, version):
        request = self.parse(version=version)
        assert request.key == b""
        answer, agreed = request.accept_headers(subprotocol="chat", headers=[(b"x", b"y")])
        assert answer == [(b"sec-websocket-protocol", b"chat"), (b"x", b"y")]
        assert agreed == ()

    def test_the_method_is_connect(self):
        with pytest.raises(HandshakeError, match="extended CONNECT"):
            self.parse(method="GET")

    def test_the_rest_is_checked_as_ever(self):
        with pytest.raises(HandshakeError) as caught:
            parse_handshake("CONNECT", "2", [])
        assert caught.value.status == 426


class TestAccept:
    def test_the_answer_to_the_example_of_the_rfc(self):
        response, agreed = check().accept()
        assert response == (
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
            b"\r\n"
        )
        assert agreed == ()

    def test_with_everything(self):
        request = check(
            {
                b"sec-websocket-protocol": b"v1, v2",
                b"sec-websocket-extensions": b"permessage-deflate; client_max_window_bits",
            }
        )
        response, (deflate,) = request.accept(
            subprotocol="v2",
            headers=[(b"set-cookie", b"a=b"), (b"set-cookie", "ü".encode())],
            extensions=[DeflateFactory(server_max_window_bits=10)],
        )
        assert response.split(b"\r\n")[4:] == [
            b"sec-websocket-protocol: v2",
            (
                b"sec-websocket-extensions: permessage-deflate; server_no_context_takeover; "
                b"client_no_context_takeover; server_max_window_bits=10"
            ),
            b"set-cookie: a=b",
            b"set-cookie: \xc3\xbc",
            b"",
            b"",
        ]
        assert deflate.name == "permessage-deflate"

    @pytest.mark.parametrize("subprotocol", ["v3", "", "v1\r\nx: y", "é"])
    def test_only_a_subprotocol_that_was_offered(self, subprotocol):
        request = check({b"sec-websocket-protocol": b"v1"})
        with pytest.raises(LocalProtocolError, match="the client offers"):
            request.accept(subprotocol=subprotocol)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            (b"", b""),
            (b"a b", b""),
            (b"a:", b""),
            (b"a\r\nb", b""),
            (b"\xc3\xa9", b""),
            (b"a", b"b\r\nc: d"),
            (b"a", b"b\n"),
            (b"a", b"b\x00"),
            (b"a", b"\x7f"),
        ],
    )
    def test_no_header_splits_the_response(self, name, value):
        with pytest.raises(LocalProtocolError, match="cannot send"):
            check().accept(headers=[(name, value)])

    @pytest.mark.parametrize(
        "name",
        [b"Sec-WebSocket-Protocol", b"sec-websocket-accept", b"content-length", b"Connection"],
    )
    def test_no_header_that_the_handshake_writes_itself(self, name):
        with pytest.raises(LocalProtocolError, match="writes it itself"):
            check().accept(headers=[(name, b"1")])


class TestPeer:
    @pytest.mark.parametrize("compressed", [False, True])
    def test_a_real_client_agrees(self, compressed):
        client = ClientProtocol(
            parse_uri("ws://example.com/chat?x=y"),
            origin="http://example.com",
            subprotocols=["v2", "v1"],
            extensions=[ClientPerMessageDeflateFactory()] if compressed else None,
        )
        client.send_request(client.connect())
        lines = b"".join(client.data_to_send()).split(b"\r\n")[1:-2]
        pairs = [line.split(b": ", 1) for line in lines]
        request = parse_handshake("GET", "1.1", [(name.lower(), value) for name, value in pairs])
        response, extensions = request.accept(subprotocol="v1", extensions=[DeflateFactory()])
        assert len(extensions) == compressed
        engine = WebSocketEngine(0.0, extensions=extensions)
        client.receive_data(response + engine.encode("hello" * 300))
        answer, frame = client.events_received()
        assert client.handshake_exc is None
        assert answer.status_code == 101
        assert client.subprotocol == "v1"
        assert (frame.opcode, frame.data) == (Opcode.TEXT, b"hello" * 300)


class TestHostileRequests:
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([*REQUEST, b"sec-websocket-protocol", b"sec-websocket-extensions"]),
                st.one_of(st.binary(max_size=30), st.sampled_from(list(REQUEST.values()))),
            )
        )
    )
    def test_any_headers_get_an_answer_or_a_plain_refusal(self, lines):
        try:
            request = parse_handshake("GET", "1.1", lines)
        except HandshakeError as refusal:
            error = refusal
        else:
            assert request.accept(extensions=[DeflateFactory()])[0].startswith(b"HTTP/1.1 101")
            return
        assert 400 <= error.status < 500
        assert str(error).isascii()
        assert str(error).isprintable()

    @pytest.mark.parametrize(
        ("name", "make"),
        [
            (b"sec-websocket-protocol", lambda n: b",".join(b"p%d" % i for i in range(n))),
            (b"sec-websocket-protocol", lambda n: b"," * n + b"p"),
            (b"sec-websocket-extensions", lambda n: b"x," * n + b"x"),
            (b"sec-websocket-extensions", lambda n: b"x" + b";y=z" * n),
            (b"sec-websocket-extensions", lambda n: b"x;y=" + b"z" * n),
            (b"sec-websocket-extensions", lambda n: b'x;y="' + b"\\z" * n),
            (b"sec-websocket-extensions", lambda n: b'x;y="' + b"z" * n + b'"'),
            (b"sec-websocket-extensions", lambda n: b"x" + b" \t" * n + b"y"),
            (b"sec-websocket-extensions", lambda n: b"permessage-deflate; x," * n + b"x"),
            (
                b"sec-websocket-extensions",
                lambda n: b"permessage-deflate" + b"; client_max_window_bits" * n,
            ),
            (b"connection", lambda n: b"x, " * n),
            (b"upgrade", lambda n: b" " * n + b"x"),
            (b"sec-websocket-key", lambda n: b"A" * n + b"=="),
        ],
    )
    def test_the_time_is_linear(self, name, make):
        # ws and tornado took quadratic time: 32 times the input, 1,024 times the time.
        def seconds(size: int) -> float:
            lines = headers({name: make(size)})
            best = 1e9
            for _ in range(3):
                started = time.process_time()
                with contextlib.suppress(HandshakeError):
                    parse_handshake("GET", "1.1", lines).accept(extensions=[DeflateFactory()])
                best = min(best, time.process_time() - started)
            return best

        assert seconds(32_000) < 250 * seconds(1_000) + 0.01
