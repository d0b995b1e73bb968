import asyncio
import os
import socket
import threading

import pytest

from headrace.layers.local import peers as peers_module
from headrace.layers.local.directory import Directory
from headrace.layers.local.peers import Flusher, Outcome, Peer, wait_for, wait_for_sync
from headrace.layers.local.wire import FrameReader

OWN, OTHER = "1" * 16, "2" * 16
BIG = bytes(3_000_000)  # more than the kernel takes at once


@pytest.fixture
def directory(tmp_path):
    directory = Directory(tmp_path / "local", with_parent=False)
    yield directory
    directory.close()


class Receiver:
    """The other process: it reads when it is told to."""

    def __init__(self, directory):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(directory / f"p-{OTHER}")
        self.listener.listen()
        self.connections = []
        self.frames = []

    def accept(self):
        self.listener.settimeout(5)
        connection, _ = self.listener.accept()
        connection.settimeout(5)
        self.reader = FrameReader(10**8)
        self.connections.append(connection)

    def read(self, count):
        """Read until there are so many frames."""
        if not self.connections:
            self.accept()
        while len(self.frames) < count:
            self.frames += self.reader.receive(self.connections[-1].recv(1 << 20))
        return self.frames

    def hang_up(self):
        while self.connections:
            self.connections.pop().close()

    def close(self):
        self.hang_up()
        self.listener.close()


@pytest.fixture
def receiver(directory):
    receiver = Receiver(directory)
    yield receiver
    receiver.close()


@pytest.fixture
def flusher(monkeypatch):
    monkeypatch.setattr(Flusher, "LINGER_S", 0.01)
    flusher = Flusher(lambda reason, groups: f"gap {reason} {groups and sorted(groups)}".encode())
    yield flusher
    thread = flusher._thread
    if thread is not None:
        thread.join(5)
        assert not thread.is_alive()


@pytest.fixture
def peer(directory, flusher):
    peer = Peer(OTHER, OWN, directory, flusher, buffer_bytes=10_000_000)
    yield peer
    peer.close()


def notes(directory):
    return [name for name in os.listdir(directory.path) if name.startswith("b-")]


def test_a_frame_is_with_the_kernel_when_send_returns(peer, receiver):
    assert [peer.send(b"%d" % number) for number in range(10)] == [Outcome.SENT] * 10
    peer.close()
    assert receiver.read(10) == [b"%d" % number for number in range(10)]
    assert receiver.reader.process == OWN


def test_what_the_kernel_does_not_take_follows_as_room_comes(peer, receiver, directory):
    assert peer.send(BIG) is Outcome.KEPT
    assert peer.send(b"after") is Outcome.KEPT
    assert notes(directory)
    assert receiver.read(2) == [BIG, b"after"]
    wait_for_sync([peer], 5)
    assert not notes(directory)
    assert peer.send(b"more") is Outcome.SENT
    assert receiver.read(3)[2] == b"more"


def test_the_note_names_the_connection(peer, receiver, directory):
    peer.send(BIG)
    (note,) = notes(directory)
    receiver.accept()
    while receiver.reader.process is None:
        receiver.reader.receive(receiver.connections[0].recv(100))
    assert note == f"b-{OTHER}-{receiver.reader.connection}"


def test_one_frame_is_kept_whatever_its_size_and_no_second_one(peer, receiver):
    peer._bound = 100
    assert peer.send(BIG) is Outcome.KEPT
    assert peer.send(b"one", "room") is Outcome.REFUSED
    assert peer.send(b"two") is Outcome.REFUSED  # its sender was told: it is no gap
    assert peer.send(b"three", "another") is Outcome.REFUSED
    assert peer.send(b"look", at_last=True) is Outcome.REFUSED
    assert peer.send(b"look", at_last=True) is Outcome.REFUSED
    frames = receiver.read(3)
    assert frames[0] == BIG
    assert frames[1].startswith(b"gap process 1111")
    assert frames[1].endswith(b"no room for 2 messages to this one ['another', 'room']")
    assert frames[2] == b"look"
    wait_for_sync([peer], 5)
    assert peer.send(b"again", "room") is Outcome.SENT


def test_what_is_only_a_nudge_is_no_gap(peer, receiver):
    peer._bound = 100
    peer.send(BIG)
    peer.send(b"look", at_last=True)
    assert receiver.read(2) == [BIG, b"look"]


def test_too_many_groups_are_all_groups(peer, receiver, monkeypatch):
    monkeypatch.setattr(peers_module, "_MOST_GROUPS", 1)
    peer._bound = 100
    peer.send(BIG)
    for group in "abc":
        peer.send(b"x", group)
    assert receiver.read(2)[1].endswith(b"3 messages to this one None")


def test_nobody_there(peer, directory):
    assert peer.send(b"x") is Outcome.GONE
    # A socket that a dead process has left.
    Receiver(directory).close()
    assert peer.send(b"x") is Outcome.GONE


def test_one_that_does_not_accept_is_not_waited_for(peer, receiver, monkeypatch):
    class Crowded(socket.socket):
        def connect(self, address):
            raise BlockingIOError

    monkeypatch.setattr(socket, "socket", Crowded)
    assert peer.send(b"x") is Outcome.GONE


def test_one_that_has_come_again_is_connected_to_anew(peer, receiver):
    peer.send(b"one")
    receiver.read(1)
    receiver.hang_up()
    assert peer.send(b"two") is Outcome.SENT
    assert receiver.read(2) == [b"one", b"two"]


def test_what_waits_is_sent_anew_from_a_whole_frame_on(peer, receiver, directory):
    peer.send(BIG)
    peer.send(b"after")
    receiver.accept()
    receiver.connections[0].recv(100_000)
    receiver.hang_up()
    assert receiver.read(2) == [BIG, b"after"]
    wait_for_sync([peer], 5)
    assert not notes(directory)


def test_what_waits_for_the_dead_is_forgotten(peer, receiver, directory):
    peer.send(BIG)
    peer.send(b"x", "room")
    receiver.accept()
    receiver.close()
    wait_for_sync([peer], 5)
    assert peer.send(b"x") is Outcome.GONE
    assert not notes(directory)


def test_the_credit_is_used_up_and_comes_back(peer, receiver, monkeypatch):
    monkeypatch.setattr(peers_module, "_CREDIT_S", 0.02)
    peer._credit_s = 0.02
    peer.send(BIG)
    wait_for_sync([peer])
    assert peer._credit_s == 0
    wait_for_sync([peer])  # at once
    receiver.read(1)
    wait_for_sync([peer], 5)
    assert peer._credit_s > 0


async def test_a_sender_on_a_loop_waits_in_the_same_way(peer, receiver):
    peer._credit_s = 0.01
    peer.send(BIG)
    await wait_for([peer])
    assert peer._credit_s == 0
    await wait_for([peer])
    reading = asyncio.create_task(asyncio.to_thread(receiver.read, 1))
    await wait_for([peer], 5)
    await reading
    with peer._lock:
        assert not peer._waiters
        assert not peer._frames


def test_a_closed_way_takes_nothing(peer, receiver):
    peer.send(BIG)
    peer.close()
    assert peer.send(b"x") is Outcome.GONE
    assert peer.fileno() == -1


def test_several_are_flushed_by_one_thread(peer, receiver, directory, flusher):
    second = Peer(OTHER, OWN, directory, flusher, buffer_bytes=0)
    peer.send(BIG)
    second.send(BIG)
    assert flusher._peers == {peer, second}
    assert flusher._thread in threading.enumerate()
    receiver.accept()
    assert receiver.read(1)
    receiver.accept()
    assert receiver.read(2)
    second.close()


def test_in_a_forked_child_it_is_let_go_of(peer, receiver, directory):
    peer.abandon()  # there is nothing yet
    peer.send(BIG)
    peer.abandon()
    assert peer.fileno() == -1
    assert notes(directory)  # the parent's
