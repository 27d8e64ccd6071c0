"""What Prometheus reads at /metrics: counts from the store when it asks, and how long this process took to answer."""

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
    """The metrics of one application; several in one process do not see each other's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "luthier_http_request_seconds",
            "Time to answer, streams until their end, by route",
            ("method", "route", "status"),
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def watch(self, ctx: Context) -> None:
        """Read the counts from this store from now on."""
        self.registry.register(_Store(ctx))


class _Store(Collector):
    """Every replica of the service says the same here, since there is one store."""

    def __init__(self, ctx: Context) -> None:
        self._here = ctx

    def describe(self) -> list[Metric]:
        return []  # the registry need not ask the store before Prometheus does

    def collect(self) -> Iterator[Metric]:
        with self._here.database.read() as c:
            found = statistics(c)
            live = workers.live(c, utc_now(), self._here.settings.lease_seconds)
        yield _gauges("luthier_jobs", "Jobs by state", "state", found.jobs)
        yield _gauges("luthier_trials", "Trials by state; `paused` wait at a rung", "state", found.trials)
        yield GaugeMetricFamily("luthier_queue_length", "Trials that wait for a worker", found.queue)
        devices = {"cpu": 0, "cuda": 0, "mps": 0} | Counter(worker.device.kind for worker in live)
        yield _gauges("luthier_workers", "Workers heard of within the length of a lease", "device", devices)
        yield CounterMetricFamily("luthier_device_seconds", "Used by all trials so far", found.device_seconds)
        yield CounterMetricFamily("luthier_trained_tokens", "Trained on by all trials so far", found.trained_tokens)


def _gauges(name: str, says: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, says, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family
