"""Every asynchronous test of the server runs on both event loops."""

import asyncio

import pytest
import uvloop

from headrace.instruments import conditions


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def no_condition_outlives_its_test():
    """The documentation's examples require some, of this whole process."""
    yield
    conditions._asked.clear()
