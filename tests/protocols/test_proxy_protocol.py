"""The header of the PROXY protocol, whole and byte by byte."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.exceptions import RemoteProtocolError
from headrace.protocols.proxy_protocol import ProxyHeader, ProxyHeaderParser

REST = b"GET / HTTP/1.1\r\n\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command=1, family=0x11, addresses=b"", more=b"", version=2, length=None):
    body = addresses + more
    size = len(body) if length is None else length
    return SIGNATURE + bytes([version << 4 | command, family]) + struct.pack("!H", size) + body


def inet(source, destination, source_port, destination_port, family=socket.AF_INET):
    packed = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    return packed + struct.pack("!HH", source_port, destination_port)


INET = inet("192.0.2.1", "198.51.100.2", 51234, 443)
INET6 = inet("2001:db8::1", "2001:db8::2", 1, 65535, socket.AF_INET6)
UNIX = b"/run/client".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0")
TLV = b"\x05\x00\x04\x01\x02\x03\x04"

NOBODY = ProxyHeader()
V4 = ProxyHeader(("192.0.2.1", 51234), ("198.51.100.2", 443))
V6 = ProxyHeader(("2001:db8::1", 1), ("2001:db8::2", 65535))
LOCAL_ENDS = ProxyHeader(("/run/client", None), ("@abstract", None))

GOOD = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n", V4),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", V6),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 0 1\r\n", ProxyHeader(("192.0.2.1", 0), ("::1", 1))),
    (b"PROXY UNKNOWN\r\n", NOBODY),
    (b"PROXY UNKNOWN ffff::1 whatever it likes\r\n", NOBODY),
    # The longest that there may be (§2.1).
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", NOBODY),
    (v2(addresses=INET), V4),
    (v2(family=0x21, addresses=INET6), V6),
    (v2(family=0x31, addresses=UNIX), LOCAL_ENDS),
    (v2(addresses=INET, more=TLV), V4),
    (v2(addresses=INET, more=TLV * 90), V4),
    (v2(command=0, family=0), NOBODY),
    (v2(command=0, family=0x11, addresses=INET), NOBODY),
    (v2(command=0, family=0x11, addresses=b"x"), NOBODY),
    (v2(family=0x00, more=TLV), NOBODY),
    (v2(family=0x12, addresses=INET), NOBODY),
    (v2(family=0x22, addresses=INET6), NOBODY),
]


def read(data, step):
    """Give the parser so many bytes at a time, as long as it takes any; what it said, the rest."""
    parser, at = ProxyHeaderParser(), 0
    while parser.header is None and at < len(data):
        taken = parser.receive(data[at : at + step])
        assert 0 < taken <= step
        at += taken
    return parser.header, data[at:]


@pytest.mark.parametrize("step", [1, 2, 7, 13, 100_000])
@pytest.mark.parametrize(("data", "header"), GOOD)
def test_a_header_and_not_a_byte_beyond_it(data, header, step):
    assert read(data + REST, step) == (header, REST)
    assert read(data, step) == (header, b"")


@pytest.mark.parametrize(("data", "_"), GOOD)
def test_without_its_last_byte_it_is_none(data, _):
    assert read(data[:-1], 100_000)[0] is None


@pytest.mark.parametrize("data", [b"", b"P", b"PROXY TCP4 1.1.1.1", SIGNATURE, SIGNATURE[:3]])
def test_what_has_not_arrived_is_waited_for(data):
    parser = ProxyHeaderParser()
    taken = 0
    while taken < len(data):
        taken += parser.receive(data[taken:])
    assert parser.header is None
    assert parser.receive(b"") == 0


@pytest.mark.parametrize("step", [1, 2, 7, 13, 100_000])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (REST, "begins with no PROXY header"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\0\0", "begins with no PROXY header"),
        (b"PROXYTCP4 1.1.1.1 2.2.2.2 1 2\r\n", "begins with no PROXY header"),
        (b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", "begins with no PROXY header"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", "ends with CR LF"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rGET", "ends with CR LF"),
        (b"PROXY \rTCP4 1.1.1.1 2.2.2.2 1 2\r\n", "ends with CR LF"),
        (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "has more than 107 bytes"),
        (b"PROXY " + b"x" * 200, "has more than 107 bytes"),
        (b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", "can't be read"),
        (b"PROXY TCP4\r\nGET / HTTP/1.1\r\n", "can't be read"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", "can't be read"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", "can't be read"),
        (b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n", "can't be read"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", "can't be read"),
        (b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n", "can't be read"),
        (b"PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n", "can't be read"),
        (b"PROXY TCP4 ::1 ::2 1 2\r\n", "can't be read"),
        (b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", "can't be read"),
        (b"PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n", "can't be read"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", "can't be read"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n", "can't be read"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n", "can't be read"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 123456 2\r\n", "can't be read"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 \xb2 2\r\n", "can't be read"),
        (v2(version=1, addresses=INET), "of version 1, which isn't known"),
        (v2(command=2, addresses=INET), "with the command 2, which isn't one"),
        (v2(family=0x41, addresses=INET), "with the family 0x41, which is none"),
        (v2(addresses=INET[:-1]), "with 11 bytes of addresses, where they take 12"),
        (v2(family=0x21, addresses=INET), "with 12 bytes of addresses, where they take 36"),
        (v2(family=0x31, addresses=INET), "with 12 bytes of addresses, where they take 216"),
    ],
)
def test_what_is_none_is_refused(data, says, step):
    with pytest.raises(RemoteProtocolError, match=says):
        read(data, step)


def test_it_is_refused_at_the_first_byte_that_says_so():
    parser = ProxyHeaderParser()
    with pytest.raises(RemoteProtocolError):
        parser.receive(b"G")
    parser = ProxyHeaderParser()
    parser.receive(SIGNATURE[:-1])
    with pytest.raises(RemoteProtocolError):
        parser.receive(b"\r")


@given(st.binary(max_size=300), st.integers(1, 40), st.sampled_from([b"", b"PROXY ", SIGNATURE]))
def test_anything_is_a_header_or_an_error_however_it_is_cut(data, step, start):
    outcomes = []
    for size in (step, 100_000):
        try:
            outcomes.append(read(start + data, size))
        except RemoteProtocolError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_a_header_of_any_length():
    data = v2(addresses=INET, more=TLV * 9000)
    assert read(data + REST, 1000) == (V4, REST)


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 65535), st.integers(0, 65535))
def test_both_versions_say_the_same(source, destination, from_port, to_port):
    line = f"PROXY TCP4 {source} {destination} {from_port} {to_port}\r\n".encode()
    packed = v2(addresses=inet(str(source), str(destination), from_port, to_port))
    said = ProxyHeader((str(source), from_port), (str(destination), to_port))
    assert read(line, 5) == read(packed, 5) == (said, b"")
