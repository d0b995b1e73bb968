import importlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.exceptions import RemoteProtocolError
from headrace.protocols import _frames, websocket

from . import wire

COMPILED = "headrace.protocols._frames_compiled"
LEAVES = [_frames]
if importlib.util.find_spec(COMPILED):
    LEAVES.append(importlib.import_module(COMPILED))

SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 125, 126, 127, 1000, 65535, 65536, 65537]


@pytest.fixture(scope="module", params=LEAVES, ids=lambda leaf: leaf.__name__.rpartition(".")[2])
def leaf(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


class TestBuilds:
    def test_the_plain_source_is_not_compiled(self):
        assert _frames.__file__.endswith("_frames.py")

    @pytest.mark.skipif(len(LEAVES) == 1, reason="nothing was compiled at install")
    def test_the_compiled_leaf_is_as_new_as_its_source(self):
        built = Path(LEAVES[1].__file__)
        assert built.suffix in (".so", ".pyd")
        for source in (Path(_frames.__file__), built.parent / "_frames_compiled.pxd"):
            assert built.stat().st_mtime >= source.stat().st_mtime, (
                f"the compiled leaf is older than {source.name}: pip install -e ."
            )

    @pytest.mark.skipif(len(LEAVES) == 1, reason="nothing was compiled at install")
    def test_the_compiled_leaf_checks_the_types_it_relies_on(self):
        for stranger in (bytearray(b"x"), memoryview(b"x"), None):
            with pytest.raises(TypeError):
                LEAVES[1].unmask(stranger, 0, 0, wire.MASK)

    @pytest.mark.skipif(len(LEAVES) == 1, reason="nothing was compiled at install")
    @pytest.mark.parametrize("where", [(-1, 0, 0), (0, 3, 0), (2, 1, 0), (0, 1, 1), (0, 1, -1)])
    def test_the_compiled_leaf_reads_nothing_beyond_its_bytes(self, where):
        start, end, at = where
        with pytest.raises(IndexError):
            LEAVES[1].unmask(b"xy", start, end, wire.MASK, at)

    @pytest.mark.skipif(not sysconfig.get_config_var("EXT_SUFFIX"), reason="no extensions here")
    @pytest.mark.parametrize("pure", ["1", ""])
    def test_an_environment_variable_chooses_the_plain_source(self, pure):
        program = "from headrace.protocols import websocket; print(websocket.COMPILED)"
        answer = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "HEADRACE_PURE": pure},
            capture_output=True,
            text=True,
            check=True,
        )
        # Not LEAVES: this process may itself have been told to run the plain source.
        folder = Path(_frames.__file__).parent
        built = any((folder / f"_frames_compiled{each}").exists() for each in EXTENSION_SUFFIXES)
        assert answer.stdout.strip() == str(not pure and built)

    def test_the_engine_says_which_one_it_uses(self):
        used = websocket.read_messages.__module__.rpartition(".")[2]
        assert used == ("_frames_compiled" if websocket.COMPILED else "_frames")


class TestUnmask:
    @pytest.mark.parametrize("size", SIZES)
    def test_every_length(self, leaf, size):
        payload = bytes(index % 251 for index in range(size))
        assert leaf.unmask(wire.masked(payload), 0, size, wire.MASK) == payload

    def test_from_the_middle_under_a_mask_from_the_middle(self, leaf):
        data = b"__" + wire.masked(b"payload") + b"__"
        assert leaf.unmask(data, 2, 9, b"??" + wire.MASK, 2) == b"payload"

    def test_a_mask_of_zeroes_changes_nothing(self, leaf):
        assert leaf.unmask(b"payload", 0, 7, bytes(4)) == b"payload"

    @given(payload=st.binary(max_size=200), mask=st.binary(min_size=4, max_size=4))
    def test_any_bytes_under_any_mask(self, payload, mask):
        for leaf in LEAVES:
            assert leaf.unmask(wire.masked(payload, mask), 0, len(payload), mask) == payload


class TestEncodeFrame:
    @pytest.mark.parametrize("size", SIZES)
    def test_the_length_takes_its_shortest_form(self, leaf, size):
        payload = b"x" * size
        expected = wire.server_frame(wire.BINARY, payload)
        assert leaf.encode_frame(0x82, payload) == expected

    def test_the_first_byte_is_the_callers(self, leaf):
        assert leaf.encode_frame(0xC1, b"") == b"\xc1\x00"


class TestReadHeader:
    @pytest.mark.parametrize("size", SIZES)
    def test_says_where_the_payload_begins(self, leaf, size):
        data = b"??" + wire.frame(wire.TEXT, b"x" * size)
        head, length, mask, start = leaf.read_header(data, 2)
        assert (head, length, mask) == (0x81, size, wire.MASK)
        assert data[start:] == wire.masked(b"x" * size)

    @pytest.mark.parametrize("size", [5, 200, 70000])
    def test_waits_for_every_byte_of_the_header(self, leaf, size):
        data = wire.frame(wire.TEXT, announce=size)
        for length in range(len(data)):
            assert leaf.read_header(data[:length], 0) is None
        assert leaf.read_header(data, 0) is not None

    def test_needs_a_mask_and_says_so_at_once(self, leaf):
        with pytest.raises(RemoteProtocolError, match="must be masked") as caught:
            leaf.read_header(b"\x81\x05", 0)
        assert caught.value.code == 1002

    @pytest.mark.parametrize(("length", "form"), [(0, 2), (125, 2), (0, 8), (126, 8), (65535, 8)])
    def test_refuses_a_length_in_a_longer_form_than_needed(self, leaf, length, form):
        with pytest.raises(RemoteProtocolError, match="shortest form"):
            leaf.read_header(wire.frame(wire.TEXT, announce=length, form=form), 0)

    @pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1])
    def test_refuses_a_length_whose_top_bit_is_set(self, leaf, length):
        with pytest.raises(RemoteProtocolError, match="top bit"):
            leaf.read_header(wire.frame(wire.TEXT, announce=length), 0)

    def test_takes_the_longest_length_there_is(self, leaf):
        longest = (1 << 63) - 1
        assert leaf.read_header(wire.frame(wire.TEXT, announce=longest), 0)[1] == longest


class TestReadMessages:
    def read(self, leaf, data, position=0, limit_bytes=1 << 20, room=64):
        events = []
        return leaf.read_messages(data, position, limit_bytes, events, room), events

    @pytest.mark.parametrize("size", [size for size in SIZES if size < 65536])
    def test_reads_a_whole_message(self, leaf, size):
        payload = "x" * size
        data = wire.text(payload) + wire.frame(wire.BINARY, payload.encode())
        assert self.read(leaf, data) == (len(data), [payload, payload.encode()])

    def test_reads_text_of_every_script(self, leaf):
        data = wire.text("Größe, 中文, 🎈")
        assert self.read(leaf, data) == (len(data), ["Größe, 中文, 🎈"])

    def test_begins_where_it_is_told(self, leaf):
        data = b"???" + wire.text("a")
        assert self.read(leaf, data, 3) == (len(data), ["a"])

    def test_stops_when_there_is_no_more_room(self, leaf):
        data = wire.text("a") * 3
        assert self.read(leaf, data, room=2) == (14, ["a", "a"])
        assert self.read(leaf, data, room=0) == (0, [])

    @pytest.mark.parametrize("size", [1, 200])
    def test_stops_before_an_incomplete_frame(self, leaf, size):
        whole = wire.text("a")
        data = whole + wire.text("b" * size)
        for length in range(len(whole), len(data)):
            assert self.read(leaf, data[:length]) == (len(whole), ["a"])

    @pytest.mark.parametrize(
        "data",
        [
            wire.frame(wire.TEXT, b"a", fin=False),
            wire.frame(wire.CONTINUATION, b"a"),
            wire.frame(wire.TEXT, b"a", rsv=0x40),
            wire.frame(wire.TEXT, b"a", mask=None) + bytes(8),
            wire.frame(wire.TEXT, b"\xff"),
            wire.frame(wire.TEXT, b"a", form=2),
            wire.frame(wire.TEXT, b"a", form=8),
            wire.frame(wire.TEXT, b"a" * 65536),
            wire.frame(wire.PING, b"a"),
            wire.frame(wire.CLOSE),
            wire.frame(3, b"a"),
            wire.frame(wire.TEXT, b"a" * 101),
            wire.frame(wire.TEXT, b"a" * 200),
        ],
    )
    def test_leaves_everything_else_alone(self, leaf, data):
        data = wire.text("before") + data
        assert self.read(leaf, data, limit_bytes=100) == (len(wire.text("before")), ["before"])

    def test_a_limit_below_nothing_leaves_even_the_empty_message(self, leaf):
        assert self.read(leaf, wire.text(""), limit_bytes=-1) == (0, [])

    @given(st.binary(max_size=40), st.integers(0, 60))
    def test_both_builds_agree_about_any_bytes(self, data, limit):
        results = []
        for leaf in LEAVES:
            try:
                header = leaf.read_header(data, 0)
            except RemoteProtocolError as error:
                header = str(error)
            results.append((header, self.read(leaf, data, limit_bytes=limit)))
        assert all(result == results[0] for result in results)
