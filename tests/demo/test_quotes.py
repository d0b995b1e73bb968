"""The quotes: one market for all processes, told to each page at its own rate."""

import contextlib
import itertools
import re
import shutil
import signal

import pytest

from .site import Site, Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")

TERM = 10**9


@contextlib.asynccontextmanager
async def quotes(site, username):
    """Open the quotes as a page does, and come back with its welcome and the first snapshot."""
    visitor = await site.visitor().log_in(username)
    async with visitor.websocket("/ws/quotes/") as socket:
        tab = Tab(socket)
        tab.welcome = await tab.wait_for("welcome")
        tab.snapshot = await tab.wait_for("snapshot")
        yield tab


async def deltas(tab, count):
    return [await tab.wait_for("delta") for _ in range(count)]


def trades(tab):
    """Return the price of each trade that a page was told of, by what tells them apart."""
    told = [tab.snapshot, *tab.heard]
    return {
        (pk, volume): last for event in told for pk, last, volume, *_ in event.get("quotes", ())
    }


def assert_same_market(one, other):
    one, other = trades(one), trades(other)
    common = one.keys() & other.keys()
    assert len(common) > 20
    assert {key: one[key] for key in common} == {key: other[key] for key in common}


# --- Quotes ---


async def test_a_snapshot_and_then_changes_without_a_gap(site):
    async with quotes(site, "maya") as tab:
        assert len(tab.snapshot["quotes"]) == 240
        await tab.send(type="rate", per_second=10)
        seq = tab.snapshot["seq"]
        for delta in await deltas(tab, 5):
            assert delta["from"] == seq
            assert delta["seq"] > seq
            seq = delta["seq"]
            for _, last, volume, bid, ask in delta["quotes"]:
                assert last in (bid, ask)
                assert ask == bid + 1
                assert volume > 0


async def test_a_slow_rate_supersedes_and_queues_nothing(site):
    async with quotes(site, "maya") as slow, quotes(site, "jonas") as fast:
        await slow.send(type="rate", per_second=1)
        await fast.send(type="rate", per_second=10)
        await deltas(slow, 1)  # what was under way at the old rate
        await deltas(fast, 1)
        fast.heard.clear()
        first, *others = await deltas(slow, 4)
        for before, after in itertools.pairwise([first, *others]):
            assert after["from"] == before["seq"]
            told = [quote[0] for quote in after["quotes"]]
            assert len(told) == len(set(told)) < after["trades"] - before["trades"]
        # Over the same events, the other was told far more often.
        begin, end = first["seq"], others[-1]["seq"]
        await fast.wait_until(lambda event: event["type"] == "delta" and event["seq"] >= end)
        ends = [event["seq"] for event in fast.heard if event["type"] == "delta"]
        assert sum(begin < seq <= end for seq in ends) > 2 * len(others)


async def test_two_pages_see_the_same_market(site):
    async with quotes(site, "maya") as one, quotes(site, "jonas") as other:
        await deltas(one, 3)
        await deltas(other, 3)
        assert_same_market(one, other)


async def test_a_page_that_asks_gets_everything_again(site):
    async with quotes(site, "maya") as tab:
        await deltas(tab, 1)
        await tab.send(type="snapshot")
        again = await tab.wait_for("snapshot")
        assert len(again["quotes"]) == 240
        assert again["seq"] > tab.snapshot["seq"]
        (delta,) = await deltas(tab, 1)
        assert delta["from"] == again["seq"]


async def test_candles_and_orders_of_the_one_that_is_looked_at(site):
    async with quotes(site, "maya") as tab:
        busiest = max(tab.snapshot["quotes"], key=lambda quote: quote[2])[0]
        await tab.send(type="rate", per_second=10)
        await tab.send(type="look", instrument=busiest)
        shown = await tab.wait_for("candles", instrument=busiest)
        times = [candle[0] for candle in shown["candles"]]
        assert len(times) >= 60
        assert times == sorted(set(times))
        for _, opened, high, low, close, volume in shown["candles"]:
            assert low <= min(opened, close) <= max(opened, close) <= high
            assert volume > 0
        delta = await tab.wait_until(lambda event: event["type"] == "delta" and event["detail"])
        detail = delta["detail"]
        assert detail["id"] == busiest
        assert len(detail["bids"]) == len(detail["asks"]) == 10
        assert min(detail["bids"] + detail["asks"]) > 0
        quote = next(quote for quote in delta["quotes"] if quote[0] == busiest)
        assert detail["candle"][4] == quote[1]


# --- Lists and alerts ---


async def test_a_watch_list_is_kept_and_in_step(site):
    async with quotes(site, "priya") as one, quotes(site, "priya") as other:
        watching = set(one.welcome["watching"])
        assert len(watching) == 6
        new = next(quote[0] for quote in one.snapshot["quotes"] if quote[0] not in watching)
        await one.send(type="watch", instrument=new, watching=True)
        for tab in (one, other):
            assert (await tab.wait_for("watching", instrument=new))["watching"] is True
    async with quotes(site, "priya") as tab:
        assert set(tab.welcome["watching"]) == watching | {new}
        await tab.send(type="watch", instrument=new, watching=False)
        await tab.wait_for("watching", instrument=new, watching=False)
    async with quotes(site, "jonas") as tab:
        assert set(tab.welcome["watching"]) != watching


def is_new_alert(event):
    return event["type"] == "alert" and not event["alert"]["fired"]


async def test_an_alert_fires_once_and_becomes_a_notification(site):
    visitor = await site.visitor().log_in("tomas")
    async with visitor.websocket("/ws/bell/") as socket, quotes(site, "tomas") as tab:
        bell = Tab(socket)
        unread = (await bell.wait_for("welcome"))["unread"]
        pk, last, *_ = max(tab.snapshot["quotes"], key=lambda quote: quote[2])
        # One that is true at the next trade, and one that never will be.
        await tab.send(type="alert", instrument=pk, above=True, price=last // 2)
        await tab.send(type="alert", instrument=pk, above=False, price=last // 2)
        kept = [await tab.wait_until(is_new_alert) for _ in range(2)]
        fired = await tab.wait_until(
            lambda event: event["type"] == "alert" and event["alert"]["fired"]
        )
        assert fired["alert"]["id"] == kept[0]["alert"]["id"]
        told = await bell.wait_for("notification")
        assert told["notification"]["kind"] == "price"
        assert re.match(r"[A-Z]+ ≥ [\d.,]+ · \w+", told["notification"]["text"])
        assert told["unread"] == unread + 1
    async with quotes(site, "tomas") as tab:
        alerts = {alert["id"]: alert["fired"] for alert in tab.welcome["alerts"]}
        assert alerts == {kept[0]["alert"]["id"]: True, kept[1]["alert"]["id"]: False}
        for number in alerts:
            await tab.send(type="forget", alert=number)
            await tab.wait_for("forgotten", alert=number)


async def test_one_can_wait_for_so_many_prices(site):
    async with quotes(site, "wen") as tab:
        for _ in range(20):
            await tab.send(type="alert", instrument=1, above=False, price=1)
            await tab.wait_for("alert")
        await tab.send(type="alert", instrument=1, above=False, price=1)
        assert (await tab.wait_for("error"))["code"] == "too_many"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"type": "rate", "per_second": 1000}, "bad_rate"),
        ({"type": "rate", "per_second": [4]}, "bad_rate"),
        ({"type": "look", "instrument": 0}, "unknown_instrument"),
        ({"type": "look", "instrument": "ALDB"}, "bad_message"),
        ({"type": "watch", "instrument": 2**60, "watching": True}, "bad_message"),
        ({"type": "alert", "instrument": 1, "above": 1, "price": 5}, "bad_message"),
        ({"type": "alert", "instrument": 1, "above": True, "price": 0}, "bad_price"),
        ({"type": "alert", "instrument": 1, "above": True, "price": 1.5}, "bad_message"),
        ({"type": "alert", "instrument": 1, "above": True, "price": 10**12}, "bad_message"),
        ({"type": "forget", "alert": 10**6}, "unknown_alert"),
        ({"type": "market.ticks"}, "unknown_command"),
    ],
)
async def test_what_makes_no_sense_is_refused(site, command, code):
    async with quotes(site, "edith") as tab:
        await tab.send(**command)
        assert (await tab.wait_for("error"))["code"] == code
        await deltas(tab, 1)  # and it goes on


async def test_an_alert_is_its_owner_s(site):
    async with quotes(site, "jonas") as jonas, quotes(site, "maya") as maya:
        await jonas.send(type="alert", instrument=1, above=False, price=1)
        number = (await jonas.wait_for("alert"))["alert"]["id"]
        await maya.send(type="forget", alert=number)
        assert (await maya.wait_for("error"))["code"] == "unknown_alert"
        assert not [event for event in await maya.quiet() if event["type"] == "alert"]
        await jonas.send(type="forget", alert=number)
        await jonas.wait_for("forgotten")


# --- Several processes ---


async def test_another_process_goes_on_where_the_market_dies(seeded, tmp_path, monkeypatch):
    monkeypatch.setenv("DEMO_LAYER", "local")
    data = shutil.copytree(seeded, tmp_path / "data")
    owner, other = Site(data), Site(data)
    await owner.start()
    await other.start()
    try:
        async with quotes(owner, "maya") as maya, quotes(other, "jonas") as jonas:
            assert maya.snapshot["seq"] // TERM == jonas.snapshot["seq"] // TERM == 1
            before = await jonas.wait_for("delta")
            await maya.wait_for("delta")
            assert_same_market(maya, jonas)
            await owner.stop(signal.SIGKILL)
            after = await jonas.wait_until(
                lambda event: event["type"] == "delta" and event["seq"] // TERM == 2
            )
            assert after["from"] > before["seq"]  # which is a gap to the page: it asks
            prices = {quote[0]: quote[1] for quote in jonas.snapshot["quotes"]}
            await jonas.send(type="snapshot")
            for pk, last, *_ in (await jonas.wait_for("snapshot"))["quotes"]:
                assert last == pytest.approx(prices[pk], rel=0.05)
    finally:
        await other.stop()


async def test_the_last_one_leaves_the_market_to_the_next(own_site):
    async with quotes(own_site, "maya") as tab:
        await deltas(tab, 2)
        trades = {quote[0]: quote[2] for quote in tab.snapshot["quotes"]}
    async with quotes(own_site, "maya") as tab:
        assert tab.snapshot["seq"] // TERM == 2
        assert all(quote[2] >= trades[quote[0]] for quote in tab.snapshot["quotes"])
