import gc

import pytest
from websockets.asyncio.client import connect

from headrace.server.config import Config
from headrace.server.server import Server
from headrace.server.settled import STEP, Settled


@pytest.fixture
def calls():
    return []


@pytest.fixture
def settled(calls):
    return Settled(
        freeze=lambda: calls.append("freeze"),
        unfreeze=lambda: calls.append("unfreeze"),
        collect=lambda: calls.append("collect"),
    )


def open_some(settled, first, count):
    for number in range(first, first + count):
        settled.opened(number, number)


def test_each_thousand_is_frozen_once(settled, calls):
    open_some(settled, 1, STEP - 1)
    assert not calls
    open_some(settled, STEP, 1)
    assert calls == ["freeze"]
    open_some(settled, STEP + 1, STEP)
    assert calls == ["freeze", "freeze"]
    assert (settled.fresh, settled.frozen) == (0, 2 * STEP)


def test_those_that_come_and_go_are_no_reason(settled, calls):
    for number in range(1, 5 * STEP):
        settled.opened(number, number)
        settled.gone(number, number)
    assert not calls
    assert (settled.fresh, settled.frozen) == (0, 0)


def test_what_half_of_the_frozen_left_behind_is_collected(settled, calls):
    open_some(settled, 1, STEP)
    calls.clear()
    for number in range(1, STEP // 2 + 1):
        settled.gone(number, STEP)
    assert not calls
    settled.gone(STEP // 2 + 1, STEP)
    assert calls == ["unfreeze", "collect", "freeze"]
    assert settled.frozen == STEP // 2 - 1


def test_all_may_go(settled, calls):
    open_some(settled, 1, STEP)
    for number in range(1, STEP + 1):
        settled.gone(number, STEP)
    assert (settled.fresh, settled.frozen) == (0, 0)
    assert calls.count("collect") <= STEP.bit_length()


def test_one_that_was_frozen_in_its_handshake_counts_among_the_frozen(settled):
    for number in range(1, STEP + 1):
        settled.opened(number, STEP + 5)
    settled.opened(STEP + 3, STEP + 5)
    settled.opened(STEP + 6, STEP + 6)
    assert (settled.fresh, settled.frozen) == (1, STEP + 1)
    settled.gone(STEP + 3, STEP + 6)
    settled.gone(STEP + 6, STEP + 6)
    assert (settled.fresh, settled.frozen) == (0, STEP)


def test_the_garbage_collector_is_told():
    settled = Settled()
    before = gc.get_freeze_count()
    try:
        open_some(settled, 1, STEP)
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()


async def application(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def refusing(scope, receive, send):
    await receive()
    await send({"type": "websocket.close"})


async def test_a_server_counts_what_is_open(settled):
    server = Server(application, Config(port=0, lifespan="off"))
    server.settled = settled
    async with server, connect(server.websocket_url), connect(server.websocket_url):
        assert settled.fresh == 2
    assert settled.fresh == 0


async def test_one_that_was_refused_was_never_open(settled):
    server = Server(refusing, Config(port=0, lifespan="off"))
    server.settled = settled
    async with server:
        with pytest.raises(Exception, match="403"):
            await connect(server.websocket_url)
    assert settled.fresh == 0
