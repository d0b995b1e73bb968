"""What Prometheus reads, and the place where it and health checks ask: a port of its own.

Rules of this file:

- It renders what the instruments say and keeps nothing: counters are the sum over the workers
  and those that have ended, so that they never go down.
- prometheus-client writes the formats. It is an extra, and missed before the server starts.
- Nothing of it is on a public port.
"""

import importlib.util
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..exceptions import ConfigurationError
from ..instruments import Snapshot, labels_of, total
from .config import Config, Lifespan
from .health import Unready, answer_health, respond, respond_text
from .runtime import ASGIApplication, Receive, Scope, Send

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["Observed", "observatory", "observatory_config", "render", "require_client"]

#: What the control link answers to ``snapshot``: ``server``, ``workers`` and ``ended``.
Observed = Mapping[str, Any]

READY_PATHS = ("/readyz", "/healthz")
LIVE_PATH = "/livez"

_OF_WORKERS = (
    ("cpu_s", "headrace_worker_cpu_seconds", "Processor time that the worker has used."),
    ("rss_bytes", "headrace_worker_resident_bytes", "Memory of the worker that is in RAM."),
    ("descriptors", "headrace_worker_descriptors", "Open descriptors of the worker."),
    ("tasks", "headrace_worker_tasks", "Tasks that run the application."),
    ("threads", "headrace_worker_threads", "Threads of the worker."),
    ("loop_lag_s", "headrace_worker_loop_lag_seconds", "The longest lag of the last seconds."),
    ("started", "headrace_worker_start_time_seconds", "When it started, since 1970."),
)
#: What leads to a worker's replacement, as the supervisor names it.
_RESTARTS = ("died", "hung", "reload", "left", "age", "requests", "memory")


def require_client() -> None:
    """Raise ConfigurationError, with what to do, where prometheus-client is missing."""
    if importlib.util.find_spec("prometheus_client") is None:
        raise ConfigurationError(
            "metrics need the package prometheus-client: pip install 'headrace[metrics]', "
            "or leave out --metrics-port"
        )


def render(observed: Observed, accept: str = "") -> tuple[bytes, str]:
    """Return the numbers in a format that the header ``Accept`` asks for, and its content type.

    That is OpenMetrics, or the text format of Prometheus for who asks for nothing.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(observed))
    encode, content_type = choose_encoder(accept)
    body: bytes = encode(registry)
    return body, content_type


class _Collector:
    """The numbers of a server, as prometheus-client collects them."""

    def __init__(self, observed: Observed) -> None:
        self._workers: list[Snapshot] = list(observed.get("workers", ()))
        ended = observed.get("ended")
        self._sum = total([*self._workers, ended] if ended else self._workers)
        self._server: Mapping[str, Any] = observed.get("server") or {}

    def collect(self) -> Iterator["Metric"]:
        """Yield each metric."""
        from prometheus_client.metrics_core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        texts = self._sum["help"]
        for name, values in sorted(self._sum["counters"].items()):
            names = _label_names(values)
            counter = CounterMetricFamily(name, texts.get(name, name), labels=names)
            for labels, value in _labelled(values, names):
                counter.add_metric(labels, value)
            yield counter
        for name, values in sorted(self._sum["gauges"].items()):
            names = _label_names(values)
            gauge = GaugeMetricFamily(name, texts.get(name, name), labels=names)
            for labels, value in _labelled(values, names):
                gauge.add_metric(labels, value)
            yield gauge
        for name, values in sorted(self._sum["histograms"].items()):
            names = _label_names(values)
            histogram = HistogramMetricFamily(name, texts.get(name, name), labels=names)
            for labels, data in _labelled(values, names):
                histogram.add_metric(labels, _cumulated(data), data["sum"])
            yield histogram
        cpu = CounterMetricFamily("headrace_cpu_seconds_total", "Processor time of all workers.")
        cpu.add_metric([], self._sum["cpu_s"])
        yield cpu
        serving = self._serving()
        workers = GaugeMetricFamily("headrace_workers", "Processes that serve.")
        workers.add_metric([], len(serving))
        yield workers
        for key, name, text in _OF_WORKERS:
            gauge = GaugeMetricFamily(name, text, labels=["worker"])
            for number, worker in serving.items():
                if key in worker:
                    gauge.add_metric([number], worker[key] or 0)
            yield gauge
        text = "Workers that were replaced, by what led to it."
        restarts = CounterMetricFamily("headrace_worker_restarts_total", text, labels=["reason"])
        # With a 0 of each: where a series begins with a 1, no alert sees that it rose.
        of_reason = dict.fromkeys(_RESTARTS, 0) | dict(self._server.get("restarts", {}))
        for reason, count in of_reason.items():
            restarts.add_metric([reason], count)
        yield restarts

    def _serving(self) -> dict[str, Snapshot]:
        """Return who serves under each number: in a deploy the one before may still be leaving."""
        return {
            str(worker.get("worker")): worker
            for worker in self._workers
            if worker.get("stage") != "leaving"
        }


def _label_names(values: Iterable[str]) -> list[str]:
    names: dict[str, None] = {}
    for text in values:
        names |= dict.fromkeys(labels_of(text))
    return list(names)


def _labelled(values: Mapping[str, Any], names: list[str]) -> Iterator[tuple[list[str], Any]]:
    for text, value in sorted(values.items()):
        labels = labels_of(text)
        yield [labels.get(name, "") for name in names], value


def _cumulated(data: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return what Prometheus calls buckets: how many were at or below each bound."""
    buckets, below = [], 0
    for bound, count in zip((*data["bounds"], math.inf), data["counts"], strict=True):
        below += count
        buckets.append(("+Inf" if bound == math.inf else str(float(bound)), float(below)))
    return buckets


# The place


def observatory(
    observed: Callable[[], Awaitable[Observed]], why_unready: Unready, *, path: str = "/metrics"
) -> ASGIApplication:
    """Return the application of the private port.

    Args:
        observed: Returns the numbers of the server and its workers.
        why_unready: Returns why the server is not ready.
        path: Where the metrics are.
    """

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        if scope["type"] != "http":
            return
        asked: str = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            await respond_text(send, 405, "there is nothing here to be changed: GET or HEAD")
        elif asked == path:
            accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
            body, content_type = render(await observed(), accept.decode("latin-1"))
            await respond(send, 200, content_type.encode(), body)
        elif asked == LIVE_PATH:
            await answer_health("live", why_unready, send)
        elif asked in READY_PATHS:
            await answer_health("ready", why_unready, send)
        else:
            places = ", ".join((path, LIVE_PATH, *READY_PATHS))
            await respond_text(send, 404, f"there is nothing here; there is something at {places}")

    return application


def observatory_config(config: Config) -> Config:
    """Return the settings of the private port's server; ConfigurationError without the extra."""
    assert config.metrics_port is not None
    require_client()
    return Config(
        host=config.metrics_bind,
        port=config.metrics_port,
        lifespan=Lifespan.OFF,
        access_log=False,
        server_header=config.server_header,
        shutdown_timeout_s=1.0,
        close_timeout_s=1.0,
    )
