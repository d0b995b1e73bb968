"""``manage.py runworker``: the ASGI application, for what arrives on named channels."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...layers import DEFAULT_CHANNEL_LAYER, InMemoryChannelLayer, channel_layers, get_channel_layer
from ...routing import ChannelNameRouter, ProtocolTypeRouter, get_default_application
from ...server.running import ending_at_once
from ...worker import Worker

__all__ = ["Command"]


class Command(BaseCommand):
    """Run a worker until SIGTERM or SIGINT."""

    help = "Runs the ASGI application for the messages of the named channels."
    #: The class of the worker, for a subclass of this command.
    worker_class = Worker

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the channels, and where they are."""
        parser.add_argument("channels", nargs="+", help="The names of the channels to listen on.")
        parser.add_argument(
            "--layer",
            default=DEFAULT_CHANNEL_LAYER,
            metavar="ALIAS",
            help="The channel layer that has them, as CHANNEL_LAYERS names it (%(default)s).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Find the layer and the application, and run the worker."""
        del args
        with ending_at_once():
            self._work(options)

    def _work(self, options: dict[str, Any]) -> None:
        alias, channels = options["layer"], options["channels"]
        layer = get_channel_layer(alias)
        if layer is None:
            configured = ", ".join(sorted(channel_layers.configs)) or "none"
            raise CommandError(
                f"CHANNEL_LAYERS has no layer {alias!r} (it has: {configured}). Add it to the "
                "settings, or name another one with --layer."
            )
        application = get_default_application()
        _require_routes(application, channels)
        if isinstance(layer, InMemoryChannelLayer):
            self.stderr.write(
                self.style.WARNING(
                    f"WARNING: the layer {alias!r} is in memory, and reaches this process alone: "
                    "nothing that your server or any other process sends will arrive here. "
                    "Configure a layer in CHANNEL_LAYERS that processes share, "
                    "'headrace.layers.LocalChannelLayer' for those of one host."
                )
            )
        worker = self.worker_class(application=application, channels=channels, channel_layer=layer)
        with _stopped_by_signals(worker):
            listed = ", ".join(channels)
            self.stdout.write(f"Listening on {listed} of the channel layer {alias!r}.")
            self.stdout.write("Quit the worker with CONTROL-C.")
            worker.run()


@contextlib.contextmanager
def _stopped_by_signals(worker: Worker) -> Iterator[None]:
    """Stop the worker by the signals that come before its loop hears them itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: worker.stop()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _require_routes(application: Any, channels: list[str]) -> None:
    """Refuse to listen where it can be seen that the application handles nothing."""
    if not isinstance(application, ProtocolTypeRouter):
        return
    inner = application.application_mapping.get("channel")
    if inner is None:
        raise CommandError(
            "Your ASGI application handles no channels. Add the key "
            f'"channel": ChannelNameRouter({{"{channels[0]}": ...}}) to its ProtocolTypeRouter.'
        )
    # A mapping that makes applications up when it is asked can't be looked into.
    if isinstance(inner, ChannelNameRouter) and type(inner.application_mapping) is dict:
        missing = [name for name in channels if name not in inner.application_mapping]
        if missing:
            raise CommandError(
                f"Your ChannelNameRouter has no application for: {', '.join(missing)}. "
                f"It has: {', '.join(inner.application_mapping) or 'none'}."
            )
