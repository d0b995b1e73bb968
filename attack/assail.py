"""``python3 -m attack.assail KEY HOST PORT SECONDS SEED``: the enemies of one attack.

They run at a low priority: elsewhere their machines are not the server's.
"""

import asyncio
import json
import os
import sys

from .catalogue import ATTACKS
from .enemy import Field, raise_descriptor_limit

__all__ = ["main"]


def main() -> int:
    key, host, port, seconds, seed = sys.argv[1:]
    os.nice(10)
    raise_descriptor_limit()
    [attack] = [attack for attack in ATTACKS if attack.key == key]
    field = asyncio.run(assail(attack, (host, int(port)), float(seconds), seed))
    json.dump(
        {"outcomes": field.outcomes, "blows": field.blows, "violations": field.violations},
        sys.stdout,
    )
    return 0


async def assail(attack: type, address: tuple[str, int], seconds: float, seed: str) -> Field:
    field = Field(address, max(seconds, attack.least_s), f"{attack.key} {seed}")
    await attack().assail(field)
    return field


if __name__ == "__main__":
    sys.exit(main())
