"""Delivery inside one process: group -> channels -> sinks. Every layer delivers through it.

Rules of this file:

- Nothing here awaits, and every method is called on the thread of one event loop.
- Cost is what an operation touches: adding, discarding and sending to one channel are
  constant; a publication is linear in the members of its group, and in nothing else.
- Membership leaves with its channel, whatever ended the consumer.
- What a sink does not take is counted and logged, never lost in silence.
"""

import logging
from collections.abc import Callable
from typing import Any

from .base import Event, Frames, Sink, is_client_event

__all__ = ["Hub", "copier_for"]

logger = logging.getLogger("headrace.layers")


def _thaw(value: Any) -> Any:
    """Copy nested dictionaries and lists; share everything else."""
    if isinstance(value, dict):
        return {key: _thaw(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_thaw(item) for item in value]
    return value


def copier_for(event: Event) -> Callable[[Event], Event]:
    """Return the cheapest function that copies this event for one more reader.

    Each handler gets an event of its own, for handlers do change them
    (``event.pop("type")``). Most events are flat: they cost one ``dict.copy``.
    """
    for value in event.values():
        if isinstance(value, dict | list):
            return _thaw
    return dict.copy


class Hub:
    """The channels and groups of this process.

    ``dropped`` counts the events that a full or closed sink did not take.
    """

    __slots__ = ("_memberships", "channels", "dropped", "groups")

    def __init__(self) -> None:
        self.channels: dict[str, Sink] = {}
        self.groups: dict[str, dict[str, Sink]] = {}
        self._memberships: dict[str, set[str]] = {}
        self.dropped = 0

    def attach(self, channel: str, sink: Sink) -> None:
        """Let the channel deliver to the sink; its memberships stay."""
        self.channels[channel] = sink
        for group in self._memberships.get(channel, ()):
            self.groups[group][channel] = sink

    def detach(self, channel: str) -> None:
        """Forget the channel and all its memberships."""
        self.channels.pop(channel, None)
        for group in self._memberships.pop(channel, ()):
            self._leave(group, channel)

    def add(self, group: str, channel: str) -> None:
        """Put an attached channel into the group."""
        self.groups.setdefault(group, {})[channel] = self.channels[channel]
        self._memberships.setdefault(channel, set()).add(group)

    def discard(self, group: str, channel: str) -> None:
        """Take the channel out of the group, if it is there."""
        memberships = self._memberships.get(channel)
        if memberships is None or group not in memberships:
            return
        memberships.remove(group)
        if not memberships:
            del self._memberships[channel]
        self._leave(group, channel)

    def deliver(self, channel: str, event: Event) -> bool:
        """Hand the event to one attached channel; False: it had no room."""
        sink = self.channels[channel]
        if is_client_event(event):
            return sink.transmit(event.copy(), {})
        return sink.put(copier_for(event)(event))

    def publish(self, group: str, event: Event) -> int:
        """Hand the event to every member of the group; return how many took it.

        A client-bound event is encoded once per wire format, by the first member that
        needs it. Any other event is copied for each member.
        """
        members = self.groups.get(group)
        if not members:
            return 0
        refused = 0
        if is_client_event(event):
            event = event.copy()
            frames: Frames = {}
            for sink in members.values():
                if not sink.transmit(event, frames):
                    refused += 1
        else:
            copy = copier_for(event)
            for sink in members.values():
                if not sink.put(copy(event)):
                    refused += 1
        if refused:
            self.dropped += refused
            logger.warning(
                "group %s: %d of %d members had no room for an event of type %.80r: dropped there",
                group,
                refused,
                len(members),
                event.get("type"),
            )
        return len(members) - refused

    def clear(self) -> None:
        """Forget every channel and group."""
        self.channels.clear()
        self.groups.clear()
        self._memberships.clear()

    def _leave(self, group: str, channel: str) -> None:
        members = self.groups[group]
        del members[channel]
        if not members:
            del self.groups[group]
