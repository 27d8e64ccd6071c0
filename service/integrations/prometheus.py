"""Metrics for Prometheus at /metrics: counts from the store, read at each scrape, and this process's latency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from luthier.store import workers
from luthier.store.statistics import statistics
from service.context import Context, utc_now


class Metrics:
    """The metrics of one application. Several applications in one process have separate metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "luthier_http_request_seconds",
            "Latency of requests, streams until their end, by route",
            ("method", "route", "status"),
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def watch(self, ctx: Context) -> None:
        """Register the counts of this store."""
        self.registry.register(_Store(ctx))


class _Store(Collector):
    """Counts from the store, which are the same on every replica."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def describe(self) -> list[Metric]:
        return []  # keeps the registry from reading the store when it registers this

    def collect(self) -> Iterator[Metric]:
        with self._ctx.database.read() as c:
            found = statistics(c)
            live = workers.live(c, utc_now(), self._ctx.settings.lease_seconds)
        yield _gauges("luthier_jobs", "Jobs by state", "state", found.jobs)
        yield _gauges("luthier_trials", "Trials by state; `paused`: at a rung, until promoted", "state", found.trials)
        yield GaugeMetricFamily("luthier_queue_length", "Trials that wait for a worker", found.queue)
        devices = {"cpu": 0, "cuda": 0, "mps": 0} | Counter(worker.device.kind for worker in live)
        yield _gauges("luthier_workers", "Workers heard from within the length of a lease", "device", devices)
        yield CounterMetricFamily("luthier_device_seconds", "Used by all trials so far", found.device_seconds)
        yield CounterMetricFamily("luthier_trained_tokens", "Trained on by all trials so far", found.trained_tokens)


def _gauges(name: str, documentation: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family
