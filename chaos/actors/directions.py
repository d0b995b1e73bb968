"""How an actor is directed: what it shall be, on its command line; then a line for each change.

Rules of this file:

- Directions and answers are dictionaries in JSON, one a line. An actor whose director has gone
  sees the end of its input, and ends.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

__all__ = ["directions", "part", "say"]


def part() -> dict[str, Any]:
    """Return what this process shall be."""
    found: dict[str, Any] = json.loads(sys.argv[1])
    return found


def say(**answer: Any) -> None:
    """Tell the director."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def directions() -> AsyncIterator[dict[str, Any]]:
    """Yield what the director says, until he is gone."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        yield json.loads(line)
