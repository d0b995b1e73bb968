"""What the chapters of the suite share: the attributes, how a test runs, how it says what is wrong.

Rules of these files:

- Each test is an ordinary function that runs a loop of its own, so that no plugin is needed.
- A test waits for events. It lets time pass only where expiry is what it is about.
- A failure says what was promised. Nothing depends on pytest's rewriting of ``assert``.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Concatenate, ParamSpec
from unittest import SkipTest

from ...layers.base import BaseChannelLayer, Event
from .peer import OtherLayer, OtherProcess

__all__ = ["LayerSuite", "check", "layer_test", "numbers_of", "refused", "same"]

P = ParamSpec("P")


def check(condition: object, promise: str) -> None:
    """Raise AssertionError, with what is promised, unless the condition holds."""
    if not condition:
        raise AssertionError(promise)


def same(heard: Sequence[Any], sent: Sequence[Any], who: str) -> None:
    """Check that everything that was sent was heard, once and in order."""
    if list(heard) == list(sent):
        return
    counts, expected = Counter(map(repr, heard)), Counter(map(repr, sent))
    wrong = {
        "lost": expected - counts,
        "too much": counts - expected,
    }
    found = [f"{name}: {', '.join(items)}" for name, items in wrong.items() if items]
    raise AssertionError(
        f"{who} is to hear everything once and in order; {'; '.join(found) or 'out of order'}; "
        f"heard: {list(heard)!r:.1000}"
    )


def numbers_of(events: Sequence[Event], type_: str | None = None) -> list[Any]:
    """Return the numbers that the events, or those of one type, carry."""
    return [event.get("number") for event in events if type_ in (None, event["type"])]


@contextlib.contextmanager
def refused(errors: type[Exception] | tuple[type[Exception], ...], what: str) -> Iterator[None]:
    """Check that the block raises one of these errors."""
    with contextlib.suppress(TimeoutError):  # it waits, in the place of a refusal
        try:
            yield
        except errors:
            return
    names = errors.__name__ if isinstance(errors, type) else " or ".join(e.__name__ for e in errors)
    raise AssertionError(f"{what}: no {names}")


def layer_test(
    body: Callable[Concatenate[Any, P], Awaitable[None]],
) -> Callable[Concatenate[Any, P], None]:
    """Run the test on a loop of its own, and close the layers that it made."""

    def test(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
        async def run() -> None:
            self.made = []
            try:
                await body(self, *args, **kwargs)
            finally:
                await self.end()

        asyncio.run(run())

    test.__name__ = body.__name__
    test.__qualname__ = body.__qualname__
    test.__module__ = body.__module__
    test.__doc__ = body.__doc__
    return test


class LayerSuite:
    """What a subclass says about its layer, and what the tests are written with."""

    #: How long a test waits for what must come.
    patience_s: float = 5.0
    #: Seconds of the shortest ``expiry`` and ``group_expiry`` that the layer takes.
    shortest_expiry_s: float = 0.25
    #: Whether the layer reaches its own process only. If not, see ``in_another_process``.
    one_process = False
    #: Whether two layers of one configuration, in one process, reach each other as two
    #: processes do.
    shared = True
    #: Whether the layer may be used from several event loops, on several threads.
    several_loops = True
    #: Whether the layer has ``send_sync``, ``group_send_sync`` and ``prepared``, as one has that
    #: derives from ``BaseChannelLayer``.
    sync_sends = True
    #: Whether a named channel can have several readers at a time.
    several_readers = True
    #: Whether what a reader does to a message is not seen by others.
    isolates_messages = True
    #: What arrives in the place of a value: a function of what was sent, or None if it is an error
    #: at the sender. The kinds of values are the names in ``headrace.testing.layers.KINDS``; those
    #: that are not here arrive as what they were. A layer that writes JSON may say
    #: ``{"tuple": list, "bytes": None, ...}``.
    arrives_as: Mapping[str, Callable[[Any], Any] | None] = {}
    #: The number of characters of the big message.
    big_message = 1_000_000
    #: The size of the big group.
    many_members = 10_000

    made: list[BaseChannelLayer]
    _others: list[OtherLayer]
    _process: ClassVar[OtherProcess | None] = None

    async def make_layer(self, **options: Any) -> BaseChannelLayer:
        """Return a layer with these options: expiry, group_expiry, capacity, channel_capacity.

        What other tests have left must not be in it: give each test a prefix, or the like, of its
        own, but all layers of a test the same.
        """
        raise NotImplementedError

    def in_another_process(self, **options: Any) -> tuple[Callable[..., Any], Mapping[str, Any]]:
        """Return what makes the same layer in another process: a function, and its arguments.

        The function (a class will do; a coroutine function, too) is found by its name there, so
        it is at the top of a module; the arguments are pickled.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: implement in_another_process(), or say one_process = True"
        )

    # What tests are written with

    async def layer(self, **options: Any) -> BaseChannelLayer:
        """Return a layer that is closed after the test."""
        layer = await self.make_layer(**options)
        self.made.append(layer)
        return layer

    async def other(self, **options: Any) -> OtherLayer:
        """Return the layer of another process, which is closed after the test."""
        if self.one_process:
            raise SkipTest("one_process = True: the layer reaches its own process only")
        make, arguments = self.in_another_process(**options)
        cls = type(self)
        if cls._process is None or cls._process.ended:
            cls._process = OtherProcess()
        return await self._begin(cls._process, make, arguments)

    async def one_more(self, **options: Any) -> OtherLayer:
        """Return the layer of a process of its own, which the test may kill."""
        if self.one_process:
            raise SkipTest("one_process = True: the layer reaches its own process only")
        make, arguments = self.in_another_process(**options)
        return await self._begin(OtherProcess(), make, arguments, stops=True)

    async def _begin(
        self,
        process: OtherProcess,
        make: Callable[..., Any],
        arguments: Mapping[str, Any],
        *,
        stops: bool = False,
    ) -> OtherLayer:
        other = OtherLayer(process, self.patience_s, stops=stops)
        self.__dict__.setdefault("_others", []).append(other)
        await other.begin(make, arguments)
        return other

    async def end(self) -> None:
        """Close every layer of the test."""
        others = self.__dict__.pop("_others", [])
        for layer in self.made:
            await layer.close()
        for other in others:
            await other.end()

    @classmethod
    def teardown_class(cls) -> None:
        """End the other process: pytest calls it behind the last test of the class."""
        process, cls._process = cls._process, None
        if process is not None:
            process.stop()

    def needs(self, promise: str) -> None:
        """Skip the test if the layer does not make this promise (an attribute of the suite)."""
        if not getattr(self, promise):
            raise SkipTest(f"{promise} = False")

    async def pushing(self, **options: Any) -> BaseChannelLayer:
        """Return a layer that pushes; skip the test if it does not."""
        layer = await self.layer(**options)
        if not getattr(layer, "pushes", False):
            raise SkipTest("the layer does not push: consumers pull from it")
        return layer

    async def members(self, layer: BaseChannelLayer, number: int, *groups: str) -> list[str]:
        """Return so many new channels, which are in the groups."""
        channels = [await layer.new_channel() for _ in range(number)]
        for channel in channels:
            for group in groups:
                await layer.group_add(group, channel)
        return channels

    async def next(self, layer: BaseChannelLayer, channel: str) -> Event:
        """Return the channel's next message, which must come."""
        try:
            async with asyncio.timeout(self.patience_s):
                return await layer.receive(channel)
        except TimeoutError:
            raise AssertionError(
                f"nothing came to channel {channel} within {self.patience_s:g} s, "
                "where a message had to"
            ) from None

    async def numbers(self, layer: BaseChannelLayer, channel: str, count: int) -> list[Any]:
        """Return the numbers that the channel's next messages carry."""
        return [(await self.next(layer, channel)).get("number") for _ in range(count)]

    async def is_next(self, layer: BaseChannelLayer, channel: str, expected: Event) -> None:
        """Check that this is the channel's next message."""
        message = await self.next(layer, channel)
        check(
            message == expected,
            f"the next message of {channel} is to be {expected!r:.200}, not {message!r:.200}",
        )

    async def nothing(self, layer: BaseChannelLayer, *channels: str) -> None:
        """Check that nothing waits in the channels: what is sent now comes first."""
        for channel in channels:
            await layer.send(channel, {"type": "marker"})
            message = await self.next(layer, channel)
            check(
                message.get("type") == "marker",
                f"nothing was to be in channel {channel}, and there is {message!r:.200}",
            )
