"""How this server is, for those who operate it: health, readiness, metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import msgspec
from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from viva_server.api import wire
from viva_server.api.problems import Problem
from viva_server.api.request import IdentifyCaller, is_local
from viva_server.auth import require_scope
from viva_server.counters import LOG, TOKEN_KINDS, Buckets, SendKind, TurnOutcome
from viva_server.services import Services
from viva_server.store.processes import VerdictKind
from viva_server.values import FinishReason

ADMIN_SCOPE = "admin"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process runs."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """New work can be taken."""

    status: Literal["ready"] = "ready"


class MetricsText:
    """The metrics, as text."""

    media_type: ClassVar = CONTENT_TYPE_LATEST.partition(";")[0]


class Document:
    """OpenAPI 3.1."""

    media_type: ClassVar = "application/json"


class OperationHandlers:
    """What this server is and how it is."""

    def __init__(self, services: Services, identify: IdentifyCaller) -> None:
        self._services = services
        self._identify = identify
        self._metrics = Metrics(services)
        self._document = b""
        # Set by the routes, which it describes.
        self.document: Callable[[], Mapping[str, Any]] = dict

    async def health(self, _: web.Request) -> web.StreamResponse:
        """Say that the process runs.

        200 as long as it does, whatever the database does.
        """
        return web.json_response(body=wire.to_json(Health()))

    async def ready(self, _: web.Request) -> web.StreamResponse:
        """Say whether new work can be taken."""
        if self._services.is_ready:
            return web.json_response(body=wire.to_json(Readiness()))
        raise Problem(
            "not_ready",
            "The server is stopping, or its database is away.",
            headers={"Retry-After": "1"},
        )

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Show Prometheus' metrics.

        To this machine, or to a token with scope `admin`; 404 where `VIVA_METRICS` is
        0.
        """
        config = self._services.config
        if not config.metrics:
            raise web.HTTPNotFound
        if not is_local(request, config.trusted_proxies):
            require_scope(await self._identify(request), ADMIN_SCOPE)
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(self, _: web.Request) -> web.StreamResponse:
        """Show this document."""
        if not self._document:
            self._document = wire.to_json(self.document())
        return web.json_response(body=self._document)


Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class _Single(NamedTuple):
    """A metric without labels: where it is kept is read when somebody asks."""

    name: str
    help: str
    read: Callable[[Services], float]


class _Labelled(NamedTuple):
    """A counter with labels; `known` gives those that are told before they happen."""

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[Services], Mapping[Any, int]]
    known: tuple[str, ...] = ()


class _Distribution(NamedTuple):
    """A histogram."""

    name: str
    help: str
    read: Callable[[Services], Buckets]


_GAUGES = (
    _Single(
        "viva_live_replies",
        "Replies that this process generates now.",
        lambda s: len(s.runtime.presence.local),
    ),
    _Single(
        "viva_readers",
        "Clients that read a reply in this process now.",
        lambda s: s.runtime.presence.readers,
    ),
    _Single(
        "viva_journal_stuck_seconds",
        "For how long the present commit of the journal has been failing.",
        lambda s: s.runtime.journal.stuck_seconds,
    ),
    _Single(
        "viva_database_clock_offset_seconds",
        "By how much PostgreSQL's clock is ahead of this machine's.",
        lambda s: s.runtime.health.clock_offset_seconds,
    ),
    _Single(
        "viva_inbox_waiting",
        "Webhooks that are in memory only.",
        lambda s: s.inbox.waiting,
    ),
    _Single(
        "viva_pool_busy_connections",
        "Connections of the pool that run a statement now.",
        lambda s: s.database.pool_usage.busy,
    ),
    _Single(
        "viva_pool_idle_connections",
        "Open connections of the pool that nobody uses now.",
        lambda s: s.database.pool_usage.idle,
    ),
    _Single(
        "viva_pool_waiting",
        "Statements that wait for a connection of the pool now.",
        lambda s: s.database.pool_usage.waiting,
    ),
)

_COUNTERS = (
    _Single(
        "viva_resumes",
        "Readers that came back to a reply.",
        lambda s: s.runtime.counters.resumes,
    ),
    _Single(
        "viva_dead_replies_closed",
        "Replies of dead processes that this process has closed.",
        lambda s: s.runtime.recovery.closed,
    ),
    _Single(
        "viva_fencings",
        "How often this process was declared dead and gave up its replies.",
        lambda s: s.runtime.ownership.fencings,
    ),
    _Single(
        "viva_fenced_writes",
        "Commits of the journal that were refused since the process was dead.",
        lambda s: s.runtime.journal.counters.fenced_writes,
    ),
    _Single(
        "viva_pool_refused",
        "Statements that got no connection of the pool in time.",
        lambda s: s.database.pool_usage.refused,
    ),
    _Single(
        "viva_log_lines_dropped",
        "Lines of the log that nobody read in time.",
        lambda _: LOG.dropped_lines,
    ),
)

_LABELLED = (
    _Labelled(
        "viva_dead_owners_closed",
        "Dead processes whose replies this process has closed.",
        ("verdict",),
        lambda s: s.runtime.recovery.dead,
        get_args(VerdictKind),
    ),
    _Labelled(
        "viva_replies_ended",
        "Replies that this process has closed.",
        ("finish_reason",),
        lambda s: s.runtime.counters.ended,
        get_args(FinishReason),
    ),
    _Labelled(
        "viva_model_tokens",
        "Tokens of whole replies, as the model's server counts them.",
        ("kind",),
        lambda s: s.runtime.counters.tokens,
        TOKEN_KINDS,
    ),
    _Labelled(
        "viva_webhooks",
        "Webhooks that were answered.",
        ("event", "outcome"),
        lambda s: s.whatsapp_counters.webhooks,
    ),
    _Labelled(
        "viva_turns",
        "Runs of WhatsApp turns that ended.",
        ("outcome",),
        lambda s: s.whatsapp_counters.turns,
        get_args(TurnOutcome),
    ),
    _Labelled(
        "viva_sends",
        "Attempts to send a message to WhatsApp.",
        ("outcome",),
        lambda s: s.whatsapp_counters.sends,
        get_args(SendKind),
    ),
)

_DISTRIBUTIONS = (
    _Distribution(
        "viva_reply_first_text_seconds",
        "From the stored question to the first text that a reader can see.",
        lambda s: s.runtime.counters.first_text_seconds,
    ),
    _Distribution(
        "viva_journal_commit_seconds",
        "How long a commit of the journal takes, its repeats included.",
        lambda s: s.runtime.journal.counters.commit_seconds,
    ),
    _Distribution(
        "viva_journal_lag_seconds",
        "How long the oldest text of a batch has waited when it is committed.",
        lambda s: s.runtime.journal.counters.lag_seconds,
    ),
    _Distribution(
        "viva_journal_batch_rows",
        "How many replies share a commit of the journal.",
        lambda s: s.runtime.journal.counters.batch_rows,
    ),
    _Distribution(
        "viva_pool_wait_seconds",
        "How long a statement waited for a connection, where it had to and got one.",
        lambda s: s.database.pool_usage.wait_seconds,
    ),
    _Distribution(
        "viva_event_loop_lag_seconds",
        "By how much the event loop wakes a task too late, sampled.",
        lambda s: s.loop_lag.seconds,
    ),
)


class Metrics:
    """A registry of this viva_server's own; nothing is kept in global ones."""

    def __init__(self, services: Services) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Counts(services))
        ProcessCollector(registry=self.registry)


class _Counts(Collector):
    """Reads the counts where they are kept, when somebody asks."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Family]:
        services = self._services
        for gauge in _GAUGES:
            value = gauge.read(services)
            yield GaugeMetricFamily(gauge.name, gauge.help, value=value)
        for counter in _COUNTERS:
            value = counter.read(services)
            yield CounterMetricFamily(counter.name, counter.help, value=value)
        for labelled in _LABELLED:
            yield _labelled(labelled, services)
        for distribution in _DISTRIBUTIONS:
            yield _histogram(distribution, services)


def _labelled(metric: _Labelled, services: Services) -> CounterMetricFamily:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    counts = {**dict.fromkeys(metric.known, 0), **metric.read(services)}
    for label, count in sorted(counts.items()):
        family.add_metric([label] if isinstance(label, str) else label, count)
    return family


def _histogram(metric: _Distribution, services: Services) -> HistogramMetricFamily:
    buckets = metric.read(services)
    bounds = [*(str(bound) for bound in buckets.bounds), "+Inf"]
    counts = list(zip(bounds, accumulate(buckets.counts), strict=True))
    return HistogramMetricFamily(
        metric.name, metric.help, buckets=counts, sum_value=buckets.total
    )
