"""The thread in which Django runs the synchronous parts of a request is measured, too.

Both signals are sent in that thread, before everything else and after it.
"""

import time

from django.core.signals import request_finished, request_started
from django.dispatch import receiver

from polling.meter import METER

__all__ = []


@receiver(request_started)
def begin(**kwargs):
    meter = METER.get()
    if meter is not None:
        meter.thread_began = time.thread_time()


@receiver(request_finished)
def end(**kwargs):
    meter = METER.get()
    if meter is not None:
        meter.cpu_s += time.thread_time() - meter.thread_began
