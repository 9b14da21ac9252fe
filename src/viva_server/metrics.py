"""What Prometheus is told about this process."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from viva_server.chat.runtime import Runtime
from viva_server.services import Services


class Metrics:
    """A registry of this viva_server's own; nothing is kept in global ones."""

    def __init__(self, services: Services) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_ChatCollector(services))


class _ChatCollector(Collector):
    """Reads the counters where they are kept, when somebody asks."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        runtime = self._services.runtime
        yield from _gauges(runtime)
        yield from _counters(runtime)


def _gauges(runtime: Runtime) -> Iterator[GaugeMetricFamily]:
    yield GaugeMetricFamily(
        "viva_live_replies",
        "Replies that this process generates now.",
        value=len(runtime.presence.local),
    )
    yield GaugeMetricFamily(
        "viva_readers", "Readers in this process.", value=runtime.presence.readers
    )
    yield GaugeMetricFamily(
        "viva_journal_stuck_seconds",
        "For how long the present commit has been failing.",
        value=runtime.journal.stuck_seconds,
    )


def _counters(runtime: Runtime) -> Iterator[CounterMetricFamily]:
    ended = CounterMetricFamily(
        "viva_replies_ended",
        "Replies that this process has closed, by their end.",
        labels=["finish_reason"],
    )
    for reason, count in sorted(runtime.ended.items()):
        ended.add_metric([reason], count)
    yield ended
    yield CounterMetricFamily(
        "viva_journal_commits",
        "Commits of the journal.",
        value=runtime.journal.commits,
    )
    yield CounterMetricFamily(
        "viva_journal_rows",
        "Chunks and closings committed by the journal.",
        value=runtime.journal.rows,
    )
    yield CounterMetricFamily(
        "viva_dead_replies_closed",
        "Replies of dead processes that this process has closed.",
        value=runtime.recovery.closed,
    )
    yield CounterMetricFamily(
        "viva_fenced",
        "How often this process was declared dead and gave up its replies.",
        value=runtime.ownership.fencings,
    )
