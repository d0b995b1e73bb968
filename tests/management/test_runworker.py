import io
import signal
from collections import defaultdict

import pytest
from django.core.management import CommandError, call_command

from headrace.layers import InMemoryChannelLayer, get_channel_layer
from headrace.management.commands.runworker import Command
from headrace.routing import ChannelNameRouter, ProtocolTypeRouter
from tests.layers.plain import PlainLayer

IN_MEMORY = {"BACKEND": "headrace.layers.InMemoryChannelLayer"}
SHARED = {"BACKEND": "tests.layers.plain.PlainLayer"}


async def jobs(scope, receive, send): ...


routed = ProtocolTypeRouter({"channel": ChannelNameRouter({"jobs": jobs})})
made_up = ProtocolTypeRouter({"channel": ChannelNameRouter(defaultdict(lambda: jobs))})
elsewhere = ProtocolTypeRouter({"channel": jobs})
pages_only = ProtocolTypeRouter({"http": jobs})


class Recorded:
    """In the place of a worker."""

    def __init__(self, **arguments):
        self.arguments = arguments

    def run(self):
        type(self).last = self.arguments


@pytest.fixture
def run(settings):
    settings.CHANNEL_LAYERS = {"default": SHARED, "here": IN_MEMORY}
    settings.ASGI_APPLICATION = f"{__name__}.routed"

    def run(*arguments):
        """Run the command: what its worker gets, and what it writes."""
        command = Command(stdout=io.StringIO(), stderr=io.StringIO())
        command.worker_class = Recorded
        call_command(command, *arguments)
        return Recorded.last, command.stdout._out.getvalue(), command.stderr._out.getvalue()

    return run


def test_the_worker_gets_the_application_the_channels_and_the_layer(run):
    worker, said, complaints = run("jobs")
    assert worker == {
        "application": routed,
        "channels": ["jobs"],
        "channel_layer": get_channel_layer(),
    }
    assert isinstance(worker["channel_layer"], PlainLayer)
    assert "Listening on jobs of the channel layer 'default'.\n" in said
    assert complaints == ""


def test_another_layer_that_is_in_memory(run):
    worker, said, complaints = run("--layer", "here", "jobs")
    assert isinstance(worker["channel_layer"], InMemoryChannelLayer)
    assert "of the channel layer 'here'" in said
    assert "nothing that your server or any other process sends will arrive here" in complaints


def test_a_layer_that_is_not_configured(run, settings):
    with pytest.raises(CommandError, match=r"no layer 'other' \(it has: default, here\)"):
        run("--layer", "other", "jobs")
    settings.CHANNEL_LAYERS = {}
    with pytest.raises(CommandError, match="it has: none"):
        run("jobs")


def test_channels_have_to_be_named(run):
    with pytest.raises(CommandError, match="channels"):
        run()


@pytest.mark.parametrize(
    ("application", "channels", "says"),
    [
        ("pages_only", ["jobs"], '"channel": ChannelNameRouter'),
        ("routed", ["jobs", "jbos"], "no application for: jbos. It has: jobs."),
    ],
)
def test_channels_that_nothing_would_handle(run, settings, application, channels, says):
    settings.ASGI_APPLICATION = f"{__name__}.{application}"
    with pytest.raises(CommandError, match=says):
        run(*channels)


@pytest.mark.parametrize("application", ["elsewhere", "jobs", "made_up"])
def test_an_application_that_can_not_be_looked_into(run, settings, application):
    settings.ASGI_APPLICATION = f"{__name__}.{application}"
    assert run("anything")[0]["channels"] == ["anything"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_worker_hears_it_itself_stops_it(run, monkeypatch, number):
    class Signalled(Recorded):
        stopped = 0

        def stop(self):
            Signalled.stopped += 1

        def run(self):
            signal.raise_signal(number)
            signal.raise_signal(number)

    before = signal.getsignal(number)
    monkeypatch.setattr("tests.management.test_runworker.Recorded", Signalled)
    Recorded.last = None
    run("jobs")
    assert Signalled.stopped == 2
    assert signal.getsignal(number) is before
