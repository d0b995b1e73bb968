"""The four ways without a server: what a process keeps of the feed, a clock, frames, limits."""

import asyncio
import base64
import hashlib
import importlib
import sys
import time
import types

import pytest
from demo.polling.handshake import GUID, explained, frame_from_client, frame_to_client
from demo.polling.kept import Kept, Message
from demo.polling.steps import Steps

from .site import DEMO


def event(number, *, before=None, term=1):
    before = number - 1 if before is None else before
    messages = [[number, f"m{number}"]]
    return {"type": "feed.message", "term": term, "before": before, "messages": messages}


def whole(begins, last, *, term=1):
    messages = [[number, f"m{number}"] for number in range(begins, last + 1)]
    return {"type": "feed.whole", "term": term, "begins": begins, "messages": messages}


def kept(last=10, most=100):
    found = Kept(most, (1, 2, 5, 10))
    assert found.take(whole(1, last))
    return found


def numbers(messages):
    return [message.number for message in messages]


# --- What is kept ---


def test_what_came_after_a_number_and_at_which_rate():
    found = kept(20)
    assert numbers(found.since(15, 1)) == [16, 17, 18, 19, 20]
    assert numbers(found.since(3, 5)) == [5, 10, 15, 20]
    assert numbers(found.since(0, 10)) == [10, 20]
    assert found.since(20, 1) == found.since(99, 1) == []
    assert found.since(19, 1) == [Message(20, "m20")]


def test_a_message_that_is_missing_makes_it_ask():
    found = kept(10)
    assert not found.take(event(12))
    assert not found.fresh.is_set()
    assert not found.take(event(13))  # which is of no use without what was missed
    assert found.take(whole(1, 13))
    assert found.fresh.is_set()
    assert numbers(found.since(9, 1)) == [10, 11, 12, 13]
    assert found.take(event(14))
    assert found.last == 14


def test_what_is_told_twice_is_kept_once():
    found = kept(10)
    assert found.take(event(10))
    assert found.take(whole(5, 10))
    assert found.fresh.is_set()
    assert numbers(found.since(8, 1)) == [9, 10]


def test_what_is_too_old_is_missed_and_said_to_be():
    found = kept(10, most=5)
    assert numbers(found.since(0, 1)) == [6, 7, 8, 9, 10]
    assert found.has_missed(0)
    assert found.has_missed(4)
    assert not found.has_missed(5)
    found.take(event(11))
    assert found.has_missed(5)


def test_a_feed_that_begins_anew_elsewhere_leaves_a_gap():
    found = kept(10)
    assert not found.take(event(40, before=39, term=2))
    assert found.take(whole(36, 40, term=2))
    assert numbers(found.since(0, 1)) == [36, 37, 38, 39, 40]
    assert found.has_missed(10)
    assert found.take(event(11))  # of one whose time is over
    assert found.last == 40


def test_numbers_that_were_left_out_are_none_that_was_missed():
    found = kept(10)
    assert found.take(event(35, before=10, term=2))
    assert numbers(found.since(9, 1)) == [10, 35]
    assert not found.has_missed(9)


@pytest.mark.parametrize(
    ("last", "exact", "stale", "goes_on"),
    [
        (10, True, False, True),
        (10, True, True, True),  # nobody has made one since this process listened last
        (12, True, True, False),
        (35, False, False, True),
        (35, False, True, False),
    ],
)
def test_who_makes_the_feed_goes_on_with_what_is_known(last, exact, stale, goes_on):
    found = kept(10)
    if stale:
        found.fresh.clear()
    found.begin_at(last, exact=exact)
    assert found.fresh.is_set()
    assert numbers(found.since(8, 1)) == ([9, 10] if goes_on else [])
    assert found.has_missed(8) is not goes_on
    found.keep([Message(last + 1, "next")])
    assert numbers(found.since(10, 1)) == [last + 1]


async def test_who_waits_is_told_at_once_later_or_never():
    found = kept(10)
    assert numbers(await found.wait(8, 1, 10)) == [9, 10]
    assert await found.wait(10, 1, 0.01) == []
    every, fifth = (asyncio.ensure_future(found.wait(10, step, 10)) for step in (1, 5))
    await asyncio.sleep(0)
    found.take(event(11))
    assert numbers(await every) == [11]
    assert not fifth.done()
    for number in range(12, 16):
        found.take(event(number))
    assert numbers(await fifth) == [15]


# --- A clock around each step ---


def meter():
    return types.SimpleNamespace(cpu_s=0.0, measuring=False)


def spin(seconds):
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass


async def test_what_it_takes_is_counted_and_what_it_waits_is_not():
    mine, other = meter(), meter()
    turn = asyncio.Event()

    async def work():
        spin(0.01)
        turn.set()
        await asyncio.sleep(0)
        spin(0.01)
        return "done"

    async def others_work():
        await turn.wait()
        spin(0.03)

    beside = asyncio.ensure_future(others_work())
    assert await Steps(mine, Steps(mine, work()).__await__()) == "done"
    await beside
    assert 0.02 <= mine.cpu_s < 0.05  # one inside of the other is counted once
    assert other.cpu_s == 0
    assert not mine.measuring


async def test_errors_and_cancellations_pass():
    async def fail():
        await asyncio.sleep(0)
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        await Steps(meter(), fail())
    seen = []

    async def wait():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def run():
        await Steps(meter(), wait())

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


# --- Handshake and frames ---


def test_a_handshake_is_explained_and_no_cookie_is_told():
    # The key and the accept of RFC 6455 §1.3.
    key, accept = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    scope = {
        "http_version": "1.1",
        "raw_path": b"/ws/",
        "headers": [(b"cookie", b"sessionid=secret"), (b"sec-websocket-key", key.encode())],
    }
    told = explained(scope, extensions="x; y=1", received_bytes=5, sent_bytes=7)
    assert told["accept"]["accept"] == accept
    digest = hashlib.sha1((key + GUID).encode(), usedforsecurity=False)
    assert told["accept"]["sha1"] == digest.hexdigest()
    assert base64.b64decode(accept) == digest.digest()
    assert ["sec-websocket-accept", accept] in told["answer"]
    assert ["sec-websocket-extensions", "x; y=1"] in told["answer"]
    assert ["sec-websocket-key", key] in told["request"]
    assert "secret" not in str(told)
    scope = {"http_version": "2", "raw_path": b"/ws/", "headers": []}
    told = explained(scope, extensions="", received_bytes=0, sent_bytes=0)
    assert told["accept"] is None
    assert told["answer"] == []


@pytest.mark.parametrize(
    ("text", "header"), [("hé", "8103"), ("x" * 125, "817d"), ("x" * 126, "817e007e")]
)
def test_a_frame_that_was_sent(text, header):
    size = len(header) // 2 + len(text.encode())
    told = frame_to_client(text, wire_bytes=size)
    assert told["bytes"] == header + text.encode().hex()
    assert frame_to_client(text, wire_bytes=size + 1)["bytes"] is None


def test_a_frame_that_came():
    plain = frame_from_client("Hello", wire_bytes=11, extensions="permessage-deflate")
    assert plain["bytes"] == "8185" + "????????" + b"Hello".hex()
    # The payload of RFC 7692 §7.2.3.1.
    told = frame_from_client("Hello", wire_bytes=13, extensions="permessage-deflate; a=1")
    assert told["bytes"] == "c187" + "????????" + "f248cdc9c90700"
    assert frame_from_client("Hello", wire_bytes=13, extensions="")["bytes"] is None
    # Two at once, or a pong with it: what can't be told apart isn't.
    assert frame_from_client("Hello", wire_bytes=22, extensions="")["bytes"] is None


# --- Limits ---


@pytest.fixture
def visitors(monkeypatch):
    """Return the module as the site imports it, and forget it again."""
    monkeypatch.syspath_prepend(DEMO)
    before = set(sys.modules)
    yield importlib.import_module("polling.visitors")
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_an_account_may_ask_for_so_much(visitors):
    known = visitors.Visitors(burst=3, per_second=1, open_at_once=2, most=2)
    refused = sys.modules["live.limits"].Refused
    for _ in range(3):
        known.ask(1, 100.0)
    with pytest.raises(refused) as caught:
        known.ask(1, 100.0)
    assert caught.value.code == "rate"
    assert caught.value.details["retry_after_s"] == pytest.approx(1)
    known.ask(2, 100.0)  # which is another's
    known.ask(1, 101.0)
    known.ask(3, 101.0)  # who was not heard of for longest is forgotten
    assert set(known._allowances) == {1, 3}
    with known.open(1), known.open(1):
        with pytest.raises(refused, match="2 of these open"), known.open(1):
            pass
        with known.open(2):
            pass
    with known.open(1):
        pass
    assert not known._open


def test_whose_session_it_is_is_known_for_a_moment(visitors):
    known = visitors.Known(lasts_s=2.0, most=2)
    known.put("a", "maya", 100.0)
    assert known.get("a", 101.9) == "maya"
    assert known.get("a", 102.0) is None
    assert known.get("b", 100.0) is None
    assert known.get(None, 100.0) is None
    for session, user in (("b", "jonas"), ("a", "maya"), ("c", "wen")):
        known.put(session, user, 103.0)
    assert [known.get(session, 103.0) for session in "abc"] == ["maya", None, "wen"]
