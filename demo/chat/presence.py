"""Who is in which room, counted in connections and told in users.

The register belongs to the process whose connections it counts: a restart empties it together
with the sockets, so nobody stays behind as a ghost. (The demo runs one process. Several would
each know only their own connections, and would have to add up what they know.)
"""

from itertools import count

__all__ = ["Presence"]


class Presence:
    """The people of every room.

    A person with three tabs is one person: :meth:`enter` and :meth:`leave` return a revision
    when that changed who is there, and None when only a tab came or went. Revisions grow with
    each change, so that who is told of two changes in the wrong order can tell the newer one.
    """

    def __init__(self) -> None:
        self._rooms: dict[int, dict[int, tuple[dict, set[str]]]] = {}
        self._revisions = count(1)
        self.revision = 0

    def enter(self, room_id: int, person: dict, connection: str) -> int | None:
        """Count ``connection`` as one of ``person`` (whose ``id`` says who that is)."""
        people = self._rooms.setdefault(room_id, {})
        known, connections = people.get(person["id"], (None, set()))
        people[person["id"]] = person, connections
        connections.add(connection)
        return self._revise() if known is None else None

    def leave(self, room_id: int, user_id: int, connection: str) -> int | None:
        """Forget ``connection``; one that is not known changes nothing."""
        people = self._rooms.get(room_id, {})
        _, connections = people.get(user_id, (None, set()))
        if connection not in connections:
            return None
        connections.remove(connection)
        if connections:
            return None
        del people[user_id]
        if not people:
            del self._rooms[room_id]
        return self._revise()

    def people(self, room_id: int) -> list[dict]:
        """Return who is in the room, in the order in which they came."""
        return [person for person, _ in self._rooms.get(room_id, {}).values()]

    def _revise(self) -> int:
        self.revision = next(self._revisions)
        return self.revision
