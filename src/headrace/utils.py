"""Two functions that applications written for Django Channels import by this path.

Headrace itself uses neither. A new function has a better home than this module.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import FunctionType, MethodType
from typing import Any, NoReturn, TypeVar

__all__ = ["await_many_dispatch", "name_that_thing"]

T = TypeVar("T")


def name_that_thing(thing: Any) -> str:
    """Return the dotted path of a class or function, or that of the class of anything else.

    A method of an instance is named with its class, a class method by its class alone.
    """
    if isinstance(thing, MethodType):
        owner = thing.__self__
        if isinstance(owner, type):
            return name_that_thing(owner)
        return f"{name_that_thing(owner)}.{thing.__name__}"
    if isinstance(thing, type | FunctionType):
        return f"{thing.__module__}.{thing.__name__}"
    return name_that_thing(type(thing))


async def await_many_dispatch(
    consumer_callables: Sequence[Callable[[], Awaitable[T]]],
    dispatch: Callable[[T], Awaitable[object]],
) -> NoReturn:
    """Call each source again and again, and await ``dispatch`` with whatever one returns.

    One result is dispatched at a time, and a source is asked for its next one after that. It
    goes on until a source or ``dispatch`` raises, or until it is cancelled; then the sources
    are cancelled. What they had returned by the time of a cancellation is dispatched first;
    a second cancellation ends that, too.
    """
    tasks: list[asyncio.Future[T]] = []
    dispatching: asyncio.Future[T] | None = None
    try:
        for source in consumer_callables:
            tasks.append(asyncio.ensure_future(source()))  # noqa: PERF401 - all or those begun
        while True:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for index, task in enumerate(tasks):
                if task.done():
                    dispatching = task
                    await dispatch(task.result())
                    dispatching = None
                    tasks[index] = asyncio.ensure_future(consumer_callables[index]())
    except asyncio.CancelledError:
        left = [task for task in tasks if task is not dispatching]
        await _cancel(left)
        for task in left:
            if not task.cancelled() and task.exception() is None:
                await dispatch(task.result())
        raise
    finally:
        await _cancel(tasks)


async def _cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """End the tasks, and see what they raise, for nobody else will."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()
