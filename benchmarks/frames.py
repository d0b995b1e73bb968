"""What one frame costs: the leaf functions compiled and uncompiled, and the whole engine.

``python -m benchmarks.frames`` prints the best of several rounds, in microseconds a call.
These numbers are why the leaf is compiled at all, and why nothing else is.
"""

import importlib
import json
import timeit
from collections.abc import Callable
from types import ModuleType
from typing import Any

from headrace.protocols import _frames, deflate, websocket

ROUNDS = 9
SECONDS_PER_ROUND = 0.05


def microseconds(call: Callable[[], Any]) -> float:
    """Return the time of one call, the best of the rounds: the least disturbed."""
    timer = timeit.Timer(call)
    number, taken = timer.autorange()
    number = max(1, int(number * SECONDS_PER_ROUND / taken))
    return min(timer.repeat(ROUNDS, number)) / number * 1e6


def masked(head: int, payload: bytes, mask: bytes = b"\x37\xfa\x21\x3d") -> bytes:
    """Return a frame as a client sends it."""
    frame = _frames.encode_frame(head, payload)
    header = bytearray(frame[: len(frame) - len(payload)])
    header[1] |= 0x80
    return bytes(header) + mask + _frames.unmask(payload, 0, len(payload), mask)


TEXT = "x" * 100
FRAME = masked(0x81, TEXT.encode())
BURST = FRAME * 32
LARGE = b"x" * 65536


def leaf(module: ModuleType) -> dict[str, float]:
    """Measure one build of the leaf."""
    return {
        "read_messages, 100 bytes": microseconds(
            lambda: module.read_messages(FRAME, 0, 1 << 20, [], 64)
        ),
        "read_messages, per message of 32": microseconds(
            lambda: module.read_messages(BURST, 0, 1 << 20, [], 64)
        )
        / 32,
        "read_header": microseconds(lambda: module.read_header(FRAME, 0)),
        "unmask 64 KB": microseconds(lambda: module.unmask(LARGE, 0, 65536, b"mask")),
        "encode_frame, 100 bytes": microseconds(lambda: module.encode_frame(0x81, LARGE[:100])),
    }


def engine(module: ModuleType) -> dict[str, float]:
    """Measure the engine over one build of the leaf."""
    names = ("encode_frame", "read_header", "read_messages", "unmask")
    before = {name: getattr(websocket, name) for name in names}
    for name in names:
        setattr(websocket, name, getattr(module, name))
    try:
        plain = websocket.WebSocketEngine(0.0)
        extension = deflate.DeflateFactory().negotiate([])
        assert extension is not None
        packed = websocket.WebSocketEngine(0.0, extensions=(extension,))
        value = json.dumps([{"id": n, "text": "a message"} for n in range(40)])
        squeezed = packed.encode(value)
        inbound = masked(0xC1, squeezed[4:] if squeezed[1] == 126 else squeezed[2:])
        first, second = FRAME[:50], FRAME[50:]

        def halves() -> None:
            plain.receive(first, 1.0)
            plain.receive(second, 1.0)

        return {
            "receive, 100 bytes of text": microseconds(lambda: plain.receive(FRAME, 1.0)),
            "receive, per message of 32": microseconds(lambda: plain.receive(BURST, 1.0)) / 32,
            "receive, the same in two halves": microseconds(halves),
            "receive, 1.3 KB compressed": microseconds(lambda: packed.receive(inbound, 1.0)),
            "encode, 100 bytes of text": microseconds(lambda: plain.encode(TEXT)),
            "encode, 1.3 KB compressed": microseconds(lambda: packed.encode(value)),
        }
    finally:
        for name, function in before.items():
            setattr(websocket, name, function)


def main() -> None:
    """Measure and print a table."""
    modules = {"pure": _frames}
    try:
        modules["compiled"] = importlib.import_module("headrace.protocols._frames_compiled")
    except ImportError:
        print("there is no compiled leaf here: pip install -e .")
    columns = {name: leaf(module) | engine(module) for name, module in modules.items()}
    print(f"{'microseconds':<34}" + "".join(f"{name:>10}" for name in columns))
    for row in columns["pure"]:
        print(f"{row:<34}" + "".join(f"{column[row]:>10.2f}" for column in columns.values()))


if __name__ == "__main__":
    main()
