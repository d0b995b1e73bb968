"""What Prometheus reads: parsed by its own client, and the same as what happened."""

import asyncio
import builtins
import importlib.util
import logging
import logging.config
import os
import re
import signal

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from headrace.exceptions import ConfigurationError
from headrace.instruments import conditions, process, remains, total
from headrace.server import snapshot as snapshot_module
from headrace.server.config import Config
from headrace.server.counters import Counters
from headrace.server.metrics import render
from headrace.server.server import Server
from tests.documented import DOCS, documented

from .clients import (
    connected,
    connection_of,
    echo,
    hello,
    runtime_of,
    serving,
    until,
)
from .supervised import service

OPEN = "application/openmetrics-text; version=1.0.0"


async def scrape(port, accept="text/plain", path="/metrics"):
    async with connected(("127.0.0.1", port)) as client:
        response = await client.get(path, f"Accept: {accept}")
        assert response.status == 200
        return response[b"content-type"].decode(), response.body.decode()


async def samples(port):
    _, text = await scrape(port)
    return samples_of(text)


def samples_of(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


async def test_what_happened_is_what_is_read():
    async with serving(echo, metrics_port=0) as server:
        async with connected(server) as client:
            assert (await client.get()).status == 200
            await client.request(b"GET / HTTP/1.1\r\n\r\n")  # without Host: refused
        async with connected(server) as client:
            await client.open_websocket()
            for text in ("one", "two"):
                await client.send_text(text)
                await client.read_text()
            found = await samples(server.metrics_port)
            assert found["headrace_connections_open", ("protocol", "websocket")] == 1
            assert found["headrace_messages_received_total",] == 2
            assert found["headrace_messages_sent_total",] == 2
            assert found["headrace_bytes_received_total",] > 100
            assert found["headrace_bytes_sent_total",] > 100
            await client.send_close(1000)
            await client.read_close()
        await until(lambda: not server.counters.open["websocket"])
        found = await samples(server.metrics_port)
        assert found["headrace_connections_total",] == 2
        assert found["headrace_requests_total",] == 1
        assert found["headrace_responses_total", ("status", "2xx")] == 1
        assert found["headrace_response_seconds_count",] == 1
        assert found["headrace_refusals_total", ("reason", "bad_request")] == 1
        assert found["headrace_websockets_total",] == 1
        assert found["headrace_accepted_total",] == 1
        assert found["headrace_websocket_closes_total", ("code", "1000")] == 1
        assert found["headrace_connections_open", ("protocol", "websocket")] == 0
        assert found["headrace_workers",] == 1
        assert found["headrace_worker_resident_bytes", ("worker", "0")] > 1_000_000
        assert found["headrace_worker_descriptors", ("worker", "0")] > 3


async def test_openmetrics_for_who_asks_for_it():
    async with serving(hello, metrics_port=0) as server:
        kind, text = await scrape(server.metrics_port, OPEN)
        assert kind.startswith("application/openmetrics-text")
        families = {family.name: family for family in parse_open(text)}
        assert families["headrace_requests"].type == "counter"
        assert families["headrace_response_seconds"].type == "histogram"
        kind, text = await scrape(server.metrics_port)
        assert kind.startswith("text/plain")
        assert list(parse_text(text))


async def test_another_path():
    async with serving(hello, metrics_port=0, metrics_path="/numbers") as server:
        _, text = await scrape(server.metrics_port, path="/numbers")
        assert "headrace_requests_total 0.0" in text


async def test_without_the_extra_a_start_says_what_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "prometheus_client" else found(name, *rest),
    )
    server = Server(hello, Config(port=0, metrics_port=0, lifespan="off"))
    with pytest.raises(ConfigurationError, match=r"pip install 'headrace\[metrics\]'"):
        await server.start()


async def test_without_the_port_prometheus_client_is_not_imported(monkeypatch):
    imported = builtins.__import__

    def refuse(name, *rest):
        assert not name.startswith("prometheus_client")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    async with serving(hello) as server, connected(server) as client:
        assert (await client.get()).status == 200


def of_worker(number, **counters):
    return {
        "worker": number,
        "cpu_s": 2.0,
        "rss_bytes": 1000,
        "counters": {f"{name}_total": {"": value} for name, value in counters.items()},
        "gauges": {"open": {'protocol="websocket"': 5, 'protocol="http/1.1"': 1}},
        "histograms": {"h_seconds": {"": {"bounds": [0.1, 1.0], "counts": [3, 2, 1], "sum": 4.5}}},
        "help": {"messages_total": 'Messages, "quoted".'},
    }


def test_workers_are_summed_and_what_has_ended_is_not_forgotten():
    observed = {
        "server": {"restarts": {"died": 3, "reload": 4}},
        "workers": [of_worker(1, messages=10), of_worker(2, messages=20)],
        "ended": remains(of_worker(0, messages=100)),
    }
    body, _ = render(observed)
    found = samples_of(body.decode())
    assert found["messages_total",] == 130
    assert found["open", ("protocol", "websocket")] == 10
    assert found["h_seconds_bucket", ("le", "0.1")] == 9
    assert found["h_seconds_bucket", ("le", "1.0")] == 15
    assert found["h_seconds_bucket", ("le", "+Inf")] == 18
    assert found["h_seconds_count",] == 18
    assert found["h_seconds_sum",] == 13.5
    assert found["headrace_cpu_seconds_total",] == 6.0
    assert found["headrace_workers",] == 2
    assert found["headrace_worker_resident_bytes", ("worker", "2")] == 1000
    assert found["headrace_worker_restarts_total", ("reason", "died")] == 3
    assert found["headrace_worker_restarts_total", ("reason", "reload")] == 4
    assert found["headrace_worker_restarts_total", ("reason", "hung")] == 0


def test_in_a_deploy_each_number_is_told_once():
    leaving = of_worker(1, messages=10) | {"stage": "leaving", "rss_bytes": 7}
    new, other = (of_worker(number, messages=1) | {"stage": "serving"} for number in (1, 2))
    body, _ = render({"workers": [leaving, new, other]})
    lines = body.decode().splitlines()
    of_worker_1 = 'headrace_worker_resident_bytes{worker="1"}'
    assert [line for line in lines if line.startswith(of_worker_1)] == [f"{of_worker_1} 1000.0"]
    found = samples_of(body.decode())
    assert found["headrace_workers",] == 2
    assert found["messages_total",] == 12


@pytest.mark.parametrize("accept", ["", OPEN])
def test_labels_of_any_form(accept):
    one = of_worker(1)
    one["counters"]["odd_total"] = {r'what="a\"b\\c\nd"': 1, 'what="x",who="y"': 2}
    body, _ = render({"workers": [one]}, accept)
    parse = parse_open if accept else parse_text
    [odd] = [family for family in parse(body.decode()) if family.name == "odd"]
    labels = [sample.labels for sample in odd.samples if sample.name == "odd_total"]
    assert {"what": 'a"b\\c\nd', "who": ""} in labels
    assert {"what": "x", "who": "y"} in labels


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_two_workers_are_one_sum_that_never_falls_when_one_is_killed(tmp_path):
    async with service(tmp_path, "--workers", "2", "--metrics-port", "0") as running:
        workers = await running.workers()
        line = await running.logged("metrics and health checks are at")
        port = int(line.rpartition("/metrics")[0].rpartition(":")[2])
        listens = await running.logged("listens on")
        public = "127.0.0.1", int(listens.rpartition(":")[2])
        asked = 0
        while True:  # both have something to lose
            async with connected(public) as client:
                assert (await client.get()).status == 200
                asked += 1
            answer = await running.ask("snapshot")
            totals = [each["counters"]["headrace_requests_total"][""] for each in answer["workers"]]
            if len(totals) == 2 and min(totals) >= 3:
                break
        assert (await samples(port))["headrace_requests_total",] == asked
        os.kill(workers[1], signal.SIGKILL)
        seen = []
        died = "headrace_worker_restarts_total", ("reason", "died")
        while len(seen) < 5 or seen[-1][died] < 1:
            seen.append(await samples(port) | {"at": None})
            await asyncio.sleep(0.05)
        async with connected(public) as client:
            assert (await client.get()).status == 200
        seen.append(await samples(port))
        requests = [each["headrace_requests_total",] for each in seen]
        assert requests == sorted(requests)
        assert requests[0] == asked
        assert requests[-1] == asked + 1
        for name in ("headrace_connections_total", "headrace_cpu_seconds_total"):
            values = [each[name,] for each in seen]
            assert values == sorted(values)


class TestSnapshot:
    async def test_the_process(self):
        async with serving(hello) as server:
            seen = server.snapshot()
            assert seen["worker"] == 0
            assert seen["rss_bytes"] > 1_000_000
            assert seen["descriptors"] > 3
            assert seen["threads"] >= 1
            assert seen["cpu_s"] > 0
            assert total([seen, seen])["rss_bytes"] == 2 * seen["rss_bytes"]

    async def test_what_the_system_does_not_say(self, monkeypatch):
        def missing(*_, **__):
            raise FileNotFoundError

        monkeypatch.setattr(builtins, "open", missing)
        assert snapshot_module.rss_bytes() > 1_000_000
        monkeypatch.undo()
        monkeypatch.setattr(snapshot_module.os, "stat", missing)
        monkeypatch.setattr(snapshot_module.os, "listdir", missing)
        assert snapshot_module.descriptors() == 0

    async def test_descriptors_are_listed_where_they_are_not_told(self, monkeypatch):
        stat = snapshot_module.os.stat

        class Empty:
            st_size = 0

        told = snapshot_module.descriptors()
        monkeypatch.setattr(
            snapshot_module.os, "stat", lambda path: Empty if "fd" in str(path) else stat(path)
        )
        assert abs(snapshot_module.descriptors() - told) <= 1

    async def test_a_loop_that_is_held_up_is_seen(self):
        async with serving(hello) as server:
            loop = asyncio.get_running_loop()
            probe = server._probe
            until_s = loop.time() + 2 * snapshot_module.INTERVAL_S
            while loop.time() < until_s:
                pass
            assert server.snapshot()["loop_lag_s"] > snapshot_module.INTERVAL_S / 2
            await until(lambda: probe.lags.largest > snapshot_module.INTERVAL_S / 2)
            assert server.snapshot()["loop_lag_s"] > snapshot_module.INTERVAL_S / 2

    async def test_a_lag_is_forgotten_in_time(self, monkeypatch):
        monkeypatch.setattr(snapshot_module, "INTERVAL_S", 0.01)
        monkeypatch.setattr(snapshot_module, "LAG_MEMORY_S", 0.05)
        async with serving(hello) as server:
            probe = server._probe
            probe._longest = 3.0
            assert server.snapshot()["loop_lag_s"] >= 3.0
            await until(lambda: server.snapshot()["loop_lag_s"] < 3.0)

    async def test_what_waits_is_asked_of_every_connection(self, monkeypatch):
        monkeypatch.setattr(snapshot_module, "INTERVAL_S", 0.01)
        monkeypatch.setattr(snapshot_module, "ROUND_S", 0.01)
        monkeypatch.setattr(snapshot_module, "SLICE", 1)

        async def floods(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 2**20})

        async with (
            serving(floods) as server,
            connected(server, receive_buffer=4096) as client,
            connected(server, receive_buffer=4096) as another,
        ):
            await client.open_websocket()
            await another.open_websocket()
            gauges = "headrace_connections_blocked", "headrace_outbox_bytes"
            await until(lambda: server.snapshot()["gauges"][gauges[0]][""] == 2)
            seen = server.snapshot()["gauges"]
            assert seen[gauges[1]][""] > 2**18
            largest = seen["headrace_outbox_bytes_max"][""]
            assert seen[gauges[1]][""] / 2 <= largest < seen[gauges[1]][""]

    async def test_events_that_wait_for_the_application(self, monkeypatch):
        monkeypatch.setattr(snapshot_module, "INTERVAL_S", 0.01)
        monkeypatch.setattr(snapshot_module, "ROUND_S", 0.01)
        go = asyncio.Event()

        async def sleepy(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await go.wait()

        async with serving(sleepy) as server, connected(server) as client:
            await client.open_websocket()
            for _ in range(5):
                await client.send_text("wake up")
            gauges = "headrace_inbox_events", "headrace_inbox_events_max"
            await until(
                lambda: [server.snapshot()["gauges"][name][""] for name in gauges] == [5, 5]
            )
            go.set()

    async def test_a_stop_in_the_middle_of_a_round(self, monkeypatch):
        monkeypatch.setattr(snapshot_module, "SLICE", 1)
        async with serving(echo) as server, connected(server) as one, connected(server) as two:
            await one.open_websocket()
            await two.open_websocket()
            probe = server._probe
            probe._look()
            probe.stop()
            await asyncio.sleep(0)
            assert probe._remaining is None

    async def test_what_the_process_counts_is_in_it(self):
        cell = process.counter("headrace_test_things_total", "Things, for a test.")
        cell.value += 7
        async with serving(hello) as server:
            counters = server.snapshot()["counters"]
            assert counters["headrace_test_things_total"][""] == cell.value


async def test_connections_have_numbers_of_their_own():
    async with serving(echo) as server, connected(server) as client:
        await client.get()
        number = connection_of(server).number
        await client.open_websocket()
        assert connection_of(server).number == number  # it is the same connection
        async with connected(server) as another:
            await another.get()
            numbers = {each.number for each in runtime_of(server).connections}
            assert len(numbers) == 2


async def test_bytes_of_one_connection():
    async with serving(echo) as server, connected(server) as client:
        await client.open_websocket()
        stream = connection_of(server)
        before = stream.received_bytes, stream.outbox.sent_bytes
        await client.send_text("abcd")
        await client.read_text()
        assert stream.received_bytes - before[0] == 10  # two bytes, the mask, four letters
        assert stream.outbox.sent_bytes - before[1] == 6


class TestDocumentation:
    def test_every_metric_that_is_named_exists_or_is_explained(self):
        page = (DOCS / "observing.md").read_text()
        named = set(re.findall(r"headrace_[a-z_]+", page))
        known = set(process._help) | set(Counters._HELP)
        sources = "".join(path.read_text() for path in (DOCS.parent / "src/headrace").rglob("*.py"))
        for name in named:
            stem = name.removeprefix("headrace_").removesuffix("_total")
            last = stem.removeprefix("layer_").removeprefix("worker_")
            told = any(f'"{each}"' in sources for each in (stem, last))
            assert name in known or told or name in sources, name

    async def test_numbers_of_ones_own(self):
        class Order:
            country, total = "de", 50

        page = documented("observing.md")
        before = page.SALES["de"].value
        page.sold(Order)
        async with serving(hello, metrics_port=0) as server:
            found = await samples(server.metrics_port)
        assert found["shop_sales_total", ("country", "de")] == before + 1
        assert found["shop_sale_euros_bucket", ("le", "100.0")] >= 1
        assert conditions.unmet() == "the search index is not loaded yet"
        page.index_is_loaded = True
        assert conditions.unmet() is None
        conditions.forget("search")

    def test_a_view_behind_another_server(self, rf, admin_user):
        page = documented("observing.md")
        conditions.forget("search")
        request = rf.get("/metrics")
        request.user = admin_user
        response = page.metrics(request)
        assert response["content-type"].startswith("text/plain")
        found = samples_of(response.content.decode())
        assert found["headrace_workers",] == 1
        assert not any(name == "headrace_worker_resident_bytes" for name, *_ in found)

    def test_the_logging_of_a_project(self, capfd):
        page = documented("observing.md")
        conditions.forget("search")
        root = logging.getLogger()
        held, level = root.handlers[:], root.level
        try:
            logging.config.dictConfig(page.LOGGING)
            logging.getLogger("shop").info("sold")
            assert capfd.readouterr().err == "INFO [-] sold\n"
        finally:
            root.handlers[:] = held
            root.setLevel(level)
