"""Who is in a document, as one process knows it: Yjs's awareness, under the server's eye.

Each page has a client id of its own and tells the others where its cursor is. y-websocket tells
the server of other clients, too, whatever it has heard of them; so a connection speaks for one
client, the first that it names and that nobody else has. What it says of others is passed
over. And whatever it says, who it is, the login says: the name and the colour are the account's.

Nothing here knows of connections or clocks: channels are names, and time is passed in.
"""

from dataclasses import dataclass

__all__ = ["OUTDATED_S", "TEXT", "Client", "Presence", "shown"]

#: The name of the text in a Yjs document.
TEXT = "content"

#: y-protocols: a client that hasn't renewed its state for so long is gone. It renews every 15 s.
OUTDATED_S = 30

# The tints of the site's accounts, as y-codemirror.next wants them.
TINTS = {
    "teal": "#0a6f6a",
    "blue": "#2659ab",
    "violet": "#6244b0",
    "plum": "#8a3a83",
    "rose": "#ab2f58",
    "rust": "#a24420",
    "ochre": "#7f5a08",
    "moss": "#47692a",
}


@dataclass(slots=True)
class Client:
    """What was said last of one client."""

    clock: int
    state: dict | None
    user: int
    channel: str
    at: float


class Presence:
    """The clients of one document, in all processes."""

    def __init__(self) -> None:
        self._clients: dict[int, Client] = {}

    def may_be(self, client: int, user: int, now: float) -> bool:
        """Tell whether a connection may speak for a client.

        One that nobody has, or that the same user has: a page that lost its connection comes
        back as the client that it was, perhaps before anybody knows that it was gone.
        """
        known = self._clients.get(client)
        return (
            known is None
            or known.user == user
            or known.state is None
            or now - known.at > OUTDATED_S
        )

    def note(
        self, client: int, clock: int, state: dict | None, *, user: int, channel: str, now: float
    ) -> None:
        self._clients[client] = Client(clock, state, user, channel, now)

    def left(self, channel: str) -> list[tuple[int, int, None]]:
        """Return what there is to tell when a connection has ended."""
        return [
            (client, known.clock, None)
            for client, known in self._clients.items()
            if known.channel == channel and known.state is not None
        ]

    def here(self, now: float, channels: set[str] | None = None) -> list[tuple[int, Client]]:
        """Return who is there, of these connections or of all; and forget who is not."""
        gone = [client for client, known in self._clients.items() if now - known.at > OUTDATED_S]
        for client in gone:
            del self._clients[client]
        return [
            (client, known)
            for client, known in self._clients.items()
            if known.state is not None and (channels is None or known.channel in channels)
        ]


def shown(state: dict, person: dict, *, reads: bool) -> dict:
    """Return a state as it is passed on: the cursor is the page's, the person is the login's.

    Nothing else of what a page says is kept, and a cursor only if it is one: other pages do
    arithmetic with it.
    """
    tint = TINTS[person["color"]]
    return {
        "user": {
            "id": person["id"],
            "name": person["name"],
            "tint": person["color"],
            "color": tint,
            "colorLight": f"{tint}33",
            "reads": reads,
        },
        "cursor": _cursor(state.get("cursor")),
    }


def _cursor(value: object) -> dict | None:
    """Return a selection, or None if it is none: two of Yjs's relative positions, as JSON."""
    if not isinstance(value, dict):
        return None
    anchor, head = _position(value.get("anchor")), _position(value.get("head"))
    return {"anchor": anchor, "head": head} if anchor and head else None


def _position(value: object) -> dict | None:
    """Return a place in the text: behind (or before) a character, or at an end of the text."""
    if not isinstance(value, dict):
        return None
    item, name, side = value.get("item"), value.get("tname"), value.get("assoc", 0)
    if type(side) is not int or abs(side) > 1:
        return None
    if isinstance(item, dict):
        client, clock = item.get("client"), item.get("clock")
        if not (_is_count(client) and _is_count(clock)):
            return None
        return {
            "type": None,
            "tname": None,
            "item": {"client": client, "clock": clock},
            "assoc": side,
        }
    if item is None and name == TEXT:
        return {"type": None, "tname": TEXT, "item": None, "assoc": side}
    return None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53
