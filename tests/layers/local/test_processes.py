"""Real processes, and what becomes of them."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from headrace.layers.local import LocalChannelLayer

from .actors import ROOT, Actor


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "local"


@pytest.fixture
def actor(directory):
    actors = []

    def start(**options):
        actors.append(Actor(directory, **options))
        return actors[-1]

    yield start
    for each in actors:
        each.close()


#: By these a child begins to measure its own coverage.
COVERAGE = {"COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"}


def script(source, *args, measured=True):
    """Run a plain program; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(source), *map(str, args)],
        cwd=ROOT,
        # What a process has covered is written when it ends, in a folder of this user's.
        env={name: value for name, value in os.environ.items() if measured or name not in COVERAGE},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr, done.stderr.decode()
    return done.stdout.decode()


SYNC = """
    import sys
    from headrace.layers.local import LocalChannelLayer
    layer = LocalChannelLayer(directory=sys.argv[1])
    for number in range(100):
        layer.group_send_sync("room", {"type": "n", "number": number})
    for number in range(100, 200):
        layer.send_sync(sys.argv[2], {"type": "n", "number": number})
"""
ASYNC = """
    import asyncio, sys
    from headrace.layers.local import LocalChannelLayer
    async def main():
        layer = LocalChannelLayer(directory=sys.argv[1])
        for number in range(100):
            await layer.group_send("room", {"type": "n", "number": number})
        for number in range(100, 200):
            await layer.send(sys.argv[2], {"type": "n", "number": number})
    asyncio.run(main())
"""


@pytest.mark.parametrize("program", [SYNC, ASYNC])
def test_a_plain_program_reaches_every_member(actor, directory, program):
    members = [actor(), actor()]
    channels = [member.call("join", "room") for member in members]
    for channel in channels:
        script(program, directory, channel)
    for member in members:
        assert sorted(member.call("heard", 300)[""]) == sorted([*range(200), *range(100)])


def test_only_those_who_are_interested_are_woken(actor):
    member, idle, sender = actor(), actor(), actor()
    member.call("join", "room")
    idle.call("join", "another")
    assert sender.call("group_send", "room", 50) == 1
    assert sender.call("group_send", "nobody", 50) == 0
    member.call("heard", 50)
    assert member.call("stats")["received"] == 50
    assert idle.call("stats")["received"] == 0


def test_ten_thousand_groups(actor):
    member, sender = actor(), actor()
    member.call("join_many", 10_000)
    sender.call("send_each", 10_000)
    (numbers,) = member.call("heard", 10_000).values()
    assert numbers == list(range(10_000))


@pytest.mark.parametrize("size", [1_000_000, 20_000_000])
def test_large_messages_arrive_whole_and_in_order(actor, size):
    member, sender = actor(), actor()
    member.call("join", "room")
    sender.call("group_send", "room", 3, size)
    (numbers,) = member.call("heard", 3).values()
    assert numbers == [0, 1, 2]
    assert member.call("gaps") == []


def test_a_process_adds_the_channel_of_another(actor):
    member, sender = actor(), actor()
    sender.call("add", "room", member.call("channel_name"))
    assert sender.call("group_send", "room", 1) == 1
    member.call("heard", 1)


class TestKilled:
    def accepted_by(self, sender, after_s):
        sender.start("flood", "room", 200)
        time.sleep(after_s)  # whenever: the test holds wherever it is
        sender.kill()
        return sender.lines()

    def test_a_sender_that_is_killed_takes_nothing_with_it_that_was_accepted(self, actor):
        members = [actor(), actor()]
        for member in members:
            member.call("join", "room")
        for turn in range(5):
            sender = actor()
            process = sender.call("process")
            accepted = self.accepted_by(sender, 0.02 + 0.02 * turn)
            for member in members:
                heard = {}
                while len(heard.get(process, ())) < len(accepted):
                    heard = member.call("heard", 1)
                    if member.call("gaps"):
                        break
                numbers = heard[process]
                assert numbers == list(range(len(numbers)))

    def test_a_receiver_that_is_killed_does_not_concern_the_others(self, actor, directory):
        stays, sender = actor(), actor()
        stays.call("join", "room")
        for turn in range(5):
            dies = actor()
            dies.call("join", "room")
            sender.start("group_send", "room", 3000, 200)
            dies.heard_one = dies.call("heard", 1)
            dies.kill()
            sender.answer()
            (numbers,) = stays.call("heard", 3000 * (turn + 1)).values()
            assert numbers == [*range(3000)] * (turn + 1)
        assert sender.call("group_send", "room", 1) == 1
        stays.call("heard", 15_001)
        # And nothing of the dead is left.
        left = sorted(
            path.name[:2] for path in directory.iterdir() if path.name[:2] in ("p-", "b-")
        )
        assert left == ["p-"]

    def test_what_a_stopped_process_was_sent_survives_the_sender(self, actor):
        member, sender = actor(), actor()
        member.call("join", "room")
        member.signal(signal.SIGSTOP)
        assert sender.call("group_send", "room", 20) == 1
        sender.kill()
        member.signal(signal.SIGCONT)
        (numbers,) = member.call("heard", 20).values()
        assert numbers == list(range(20))
        assert member.call("gaps") == []

    def test_what_a_killed_sender_had_not_got_rid_of_is_a_gap(self, actor):
        member, sender = actor(), actor()
        member.call("join", "room")
        member.signal(signal.SIGSTOP)
        sender.call("group_send", "room", 300, 100_000)
        sender.kill()
        member.signal(signal.SIGCONT)
        (gap,) = member.call("gaps", 1)
        assert gap["groups"] == ["room"]
        (numbers,) = member.call("heard", 1).values()
        assert numbers == list(range(len(numbers)))
        assert len(numbers) < 300


class TestStopped:
    def test_nobody_waits_for_it_and_it_is_told_what_it_has_missed(self, actor):
        stopped, member, sender = actor(), actor(), actor(buffer_bytes=1_000_000)
        channel = stopped.call("join", "room", "other")
        member.call("join", "room")
        stopped.call("heard", 0)
        stopped.signal(signal.SIGSTOP)
        began = time.monotonic()
        assert sender.call("group_send", "room", 500, 20_000) == 1  # only one takes the last
        assert time.monotonic() - began < 10
        (numbers,) = member.call("heard", 500).values()
        assert numbers == list(range(500))
        full, took_s = sender.call("send", channel, 5)
        assert full == 5
        assert took_s < 1
        stopped.signal(signal.SIGCONT)
        (gap,) = stopped.call("gaps", 1)
        assert gap["groups"] == ["room"]
        assert "no room for" in gap["reason"]
        (numbers,) = stopped.call("heard", 1).values()
        assert numbers == list(range(len(numbers)))
        assert sender.call("stats")["refused"] == 500 - len(numbers)
        # And all is as before.
        assert sender.call("group_send", "room", 1) == 2
        assert sender.call("send", channel, 1)[0] == 0
        stopped.call("heard", len(numbers) + 2)

    def test_a_process_that_is_busy_hears_all_the_same(self, actor):
        busy, sender = actor(), actor()
        busy.call("join", "room")
        busy.start("busy", 0.5)
        sender.call("group_send", "room", 2000, 2000)
        busy.answer()
        (numbers,) = busy.call("heard", 2000).values()
        assert numbers == list(range(2000))
        assert busy.call("gaps") == []


class TestNamedChannels:
    def test_each_message_goes_to_one_worker_whoever_dies(self, actor):
        sender = actor()
        assert sender.call("send", "work", 50)[0] == 0  # nobody reads yet
        first, second = actor(), actor()
        first.start("work", "work")
        second.start("work", "work")
        assert sender.call("send", "work", 200)[0] == 0
        sender.kill()
        done = []
        while len(done) < 250:
            for worker in (first, second):
                while len(done) < 250 and worker.has_written(0.01):
                    done.append(worker.answer())
        assert sorted(done) == sorted([*range(50), *range(200)])
        first.kill()
        second.kill()

    def test_what_waits_outlives_all_processes(self, actor):
        sender = actor()
        sender.call("send", "work", 3)
        sender.kill()
        worker = actor()
        worker.start("work", "work")
        assert [worker.answer() for _ in range(3)] == [0, 1, 2]
        worker.kill()


class TestTheDirectory:
    def test_what_is_removed_is_made_anew(self, actor, directory):
        member, sender = actor(look_interval_s=0.05), actor(look_interval_s=0.05)
        member.call("join", "room")
        shutil.rmtree(directory)
        assert member.call("gaps", 1)[0]["groups"] == ["room"]
        while sender.call("group_send", "room", 1) == 0:
            pass
        member.call("heard", 1)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
    def test_another_user_is_kept_out(self, actor, directory):
        member = actor()
        channel = member.call("join", "room")
        os.chmod(directory.parent, 0o755)
        for path in directory.parents:
            if path.name.startswith(("pytest-", "popen-")):
                os.chmod(path, 0o755)
        told = script(
            """
            import os, socket, sys
            directory, process = sys.argv[1:]
            from headrace.layers.local import LocalChannelLayer
            from headrace.exceptions import InvalidChannelLayerError
            os.setgid(65534), os.setuid(65534)
            connection = socket.socket(socket.AF_UNIX)
            for attempt in (
                lambda: os.listdir(directory),
                lambda: open(directory + "/table", "rb"),
                lambda: connection.connect(directory + "/p-" + process),
                lambda: LocalChannelLayer(directory=directory).send_sync("x", {"type": "x"}),
            ):
                try:
                    attempt()
                except (PermissionError, InvalidChannelLayerError) as error:
                    print(type(error).__name__)
            connection.close()
            """,
            directory,
            channel.split(".")[1].split("!")[0],
            measured=False,
        )
        assert told.split() == ["PermissionError"] * 3 + ["InvalidChannelLayerError"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
    def test_another_user_is_refused_where_somebody_has_opened_the_door(self, actor, directory):
        member = actor()
        channel = member.call("join", "room")
        process = channel.split(".")[1].split("!")[0]
        for path in (directory, directory.parent, *directory.parents):
            if path.name.startswith(("pytest-", "popen-")) or path in (directory, directory.parent):
                os.chmod(path, 0o777)
        os.chmod(directory / f"p-{process}", 0o777)
        told = script(
            """
            import os, socket, sys
            os.setgid(65534), os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(sys.argv[1])
                print(connection.recv(1) == b"")
            """,
            directory / f"p-{process}",
            measured=False,
        )
        assert told.split() == ["True"]
        assert member.call("stats")["undecodable"] == 1


def test_a_forked_child_is_a_process_of_its_own(directory):
    told = script(
        """
        import asyncio, os, sys
        from headrace.layers.local import LocalChannelLayer
        layer = LocalChannelLayer(directory=sys.argv[1])
        parent = layer.process

        async def begin():
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            await layer.send("work", {"type": "before"})
            return channel

        async def hear(channel):
            async with asyncio.timeout(5):
                return await layer.receive(channel)

        loop = asyncio.new_event_loop()
        channel = loop.run_until_complete(begin())
        layer_2 = LocalChannelLayer(directory=sys.argv[1])
        layer_2.group_send_sync("room", {"type": "zero"})
        child = os.fork()
        if child == 0:
            async def answer():
                assert layer.process != parent
                assert not layer.groups
                await layer.group_send("room", {"type": "from.child"})
                assert (await layer.receive("work"))["type"] == "before"
                await layer.group_add("room", await layer.new_channel())
            asyncio.run(answer())
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        for _ in range(2):
            print(loop.run_until_complete(hear(channel))["type"])
        # The child is dead: what is sent now finds that out.
        print(loop.run_until_complete(layer.group_send("room", {"type": "more"})))
        loop.run_until_complete(layer.close())
        loop.run_until_complete(layer_2.close())
        loop.close()
        """,
        directory,
    )
    assert told.split() == ["zero", "from.child", "0"]


def test_who_was_only_forked_and_killed_keeps_no_slot(directory):
    """The lock of a slot is its process's alone."""
    script(
        """
        import asyncio, os, signal, sys, time
        from headrace.layers.local import LocalChannelLayer
        layer = LocalChannelLayer(directory=sys.argv[1])
        reading, writing = os.pipe()
        parent = os.fork()
        if parent == 0:
            asyncio.run(layer.new_channel())
            child = os.fork()
            if child == 0:
                os.write(writing, b"%10d" % os.getpid())
                time.sleep(30)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(parent, 0)
        child = int(os.read(reading, 10))
        asyncio.run(layer.new_channel())
        assert layer._own.slot.number == 1, layer._own.slot.number
        os.kill(child, signal.SIGKILL)
        asyncio.run(layer.close())
        """,
        directory,
    )


def test_the_default_directory_is_the_projects(monkeypatch, tmp_path):
    source = """
        import os, sys
        from django.conf import settings
        if sys.argv[1] == "none":
            settings.configure(SECRET_KEY="a")
        else:
            os.environ["DJANGO_SETTINGS_MODULE"] = sys.argv[1]
        from headrace.layers.local import LocalChannelLayer
        print(LocalChannelLayer(prefix=sys.argv[2]).directory)
    """
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    paths = [
        script(source, *args).strip()
        for args in (("tests.settings", "asgi"), ("tests.settings", "b"), ("none", "asgi"))
    ]
    monkeypatch.delenv("TMPDIR")
    assert script(source, "tests.settings", "asgi").strip() == paths[0]
    assert len(set(paths)) == 3
    for path in paths:
        assert f"/headrace-{os.geteuid()}/" in path
        assert str(tmp_path) not in path


def test_a_layer_that_nobody_closes_leaves_nothing(directory):
    script(
        """
        import asyncio, sys
        from headrace.layers.local import LocalChannelLayer
        async def main():
            layer = LocalChannelLayer(directory=sys.argv[1])
            await layer.group_add("room", await layer.new_channel())
            await layer.send("work", {"type": "x"})
        asyncio.run(main())
        """,
        directory,
    )
    assert not [path for path in directory.iterdir() if path.name.startswith("p-")]
    assert LocalChannelLayer(directory=directory)._open().processes() == []
