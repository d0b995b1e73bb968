"""A clock around each step of a coroutine: what it takes of the processor, and not how long."""

import time
from collections.abc import Coroutine, Generator
from typing import Any, Protocol

__all__ = ["Steps", "Timed"]


class Timed(Protocol):
    """Whose time it is."""

    #: Seconds of processor time.
    cpu_s: float
    #: Set during a step: one inside of it has its time counted already.
    measuring: bool


class Steps:
    """Runs a coroutine as ``await`` does, with a clock around each step."""

    def __init__(self, meter: Timed, coroutine: Coroutine) -> None:
        self.meter = meter
        self.coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        step, argument = self.coroutine.send, None
        while True:
            try:
                awaited = self.measured(step, argument)
            except StopIteration as end:
                return end.value
            try:
                step, argument = self.coroutine.send, (yield awaited)
            except GeneratorExit:
                self.coroutine.close()
                raise
            except BaseException as error:  # a cancellation, too, is for the coroutine
                step, argument = self.coroutine.throw, error

    def measured(self, step, argument):
        meter = self.meter
        if meter.measuring:  # inside of a step that is measured
            return step(argument)
        meter.measuring = True
        began = time.thread_time()
        try:
            return step(argument)
        finally:
            meter.cpu_s += time.thread_time() - began
            meter.measuring = False
