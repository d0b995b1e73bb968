"""Names in Redis: what a group, a process and a queue are called there, and where each one is.

Rules of this file:

- All that belongs to one group, process or queue has the same *tag*, which stands between the
  braces of its names: a cluster keeps it in one slot (Redis Cluster specification, "Hash tags").
- One function says where a tag is, for whoever sends and for whoever listens: ``shard_of``
  among independent servers, ``slot_of`` in a cluster.
"""

import binascii

__all__ = ["SLOTS", "Names", "shard_of", "slot_of", "tag_of"]

#: Redis Cluster specification, "Key distribution model".
SLOTS = 16384


def shard_of(tag: str, count: int) -> int:
    """Return which of so many independent servers has the tag."""
    return binascii.crc32(tag.encode()) % count


def slot_of(tag: str) -> int:
    """Return the slot of the cluster that has the tag."""
    # Redis Cluster specification, "Keys hash tags": CRC16 of XMODEM, which is crc_hqx.
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


def tag_of(name: str) -> str:
    """Return the tag of a name that is made here."""
    return name.partition("{")[2].partition("}")[0]


class Names:
    """The names under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    # Channels of Redis's publish and subscribe

    def group(self, group: str) -> str:
        """Return where a group's events are published."""
        return f"{self.prefix}:group:{{{group}}}"

    def process(self, process: str) -> str:
        """Return where frames for one process are published."""
        return f"{self.prefix}:process:{{{process}}}"

    def everyone(self) -> str:
        """Return where frames for all processes are published."""
        return f"{self.prefix}:{{everyone}}"

    def wake(self, channel: str, process: str) -> str:
        """Return where a process hears that there is something in a queue."""
        return f"{self.prefix}:wake:{{{channel}}}:{process}"

    # Keys

    def members(self, group: str) -> str:
        """Return the key of the named channels in a group: a sorted set, by end of membership."""
        return f"{self.prefix}:members:{{{group}}}"

    def queue(self, channel: str) -> str:
        """Return the key of what waits in a named channel: a list, the oldest first."""
        return f"{self.prefix}:queue:{{{channel}}}"

    def readers(self, channel: str) -> str:
        """Return the key of the processes that wait for a queue: a list, the next one first."""
        return f"{self.prefix}:readers:{{{channel}}}"

    def taken(self, channel: str, process: str) -> str:
        """Return the key of what a process has taken last, until it says that it has it."""
        return f"{self.prefix}:taken:{{{channel}}}:{process}"

    def put(self, channel: str, sender: str) -> str:
        """Return the key of the number of what a sender has put into a queue last."""
        return f"{self.prefix}:put:{{{channel}}}:{sender}"

    def all_keys(self) -> str:
        """Return a pattern that all keys match, and nothing of others."""
        escaped = "".join(f"\\{c}" if c in "*?[]\\^-" else c for c in self.prefix)
        return f"{escaped}:*"
