"""What /metrics says, its table in the documents, and the dashboard are one thing."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.chat_host import settings
from viva_server.api.operations import Metrics
from viva_server.counters import (
    Buckets,
    LoopLag,
    WebhookOutcome,
)
from viva_server.services import Services
from viva_server.values import FinishReason
from viva_server.whatsapp.events.table import EVENTS, GO_KINDS, label_of

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
DASHBOARD: Any = json.loads(
    (ROOT / "docs" / "grafana-dashboard.json").read_text("utf-8")
)


def families(services: Services | None = None) -> dict[str, Metric]:
    """Read the metrics as Prometheus does; counters by their whole name."""
    services = services or Services(settings("postgresql:///never"))
    text = generate_latest(Metrics(services).registry).decode()
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in text_string_to_metric_families(text)
    }


def services_that_saw_a_webhook() -> Services:
    services = Services(settings("postgresql:///never"))
    services.whatsapp_counters.webhooks["unread", "refused"] += 1
    return services


FAMILIES = families(services_that_saw_a_webhook())


def test_every_metric_is_in_the_table_and_every_row_is_a_metric() -> None:
    rows = re.findall(
        r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \|([^|]*)\|",
        OPERATIONS,
        re.MULTILINE,
    )

    assert {
        name: (kind, re.findall("`(.*?)`", labels)) for name, kind, labels in rows
    } == {name: (family.type, labels_of(family)) for name, family in FAMILIES.items()}
    assert len(FAMILIES) > 25


def labels_of(family: Metric) -> list[str]:
    return sorted(
        {name for sample in family.samples for name in sample.labels} - {"le"}
    )


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name, family in FAMILIES.items():
        assert re.fullmatch(r"(viva|process)_[a-z_]+", name)
        assert name.endswith("_total") is (family.type == "counter")
        assert not re.search(r"_(ms|millis|minutes|count|sum|bucket)$", name)
        assert family.documentation.endswith(".")


def test_what_can_happen_is_told_before_it_happens() -> None:
    reasons = {
        sample.labels["finish_reason"]: sample.value
        for sample in FAMILIES["viva_replies_ended_total"].samples
    }

    assert reasons == dict.fromkeys(get_args(FinishReason), 0.0)
    assert len(FAMILIES["viva_turns_total"].samples) == 5
    assert len(FAMILIES["viva_sends_total"].samples) == 4


def test_counts_are_read_where_they_are_kept() -> None:
    services = Services(settings("postgresql:///never"))
    services.runtime.counters.ended["stop"] += 2
    services.runtime.counters.resumes += 3
    services.whatsapp_counters.turns["answered"] += 1
    services.whatsapp_counters.sends["unknown"] += 1
    services.whatsapp_counters.webhooks["messages.upsert", "duplicate"] += 1
    services.runtime.journal.counters.batch_rows.observe(7)

    told = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(services).values()
        for sample in family.samples
    }

    assert told["viva_replies_ended_total", "stop"] == 2
    assert told["viva_resumes_total",] == 3
    assert told["viva_turns_total", "answered"] == 1
    assert told["viva_sends_total", "unknown"] == 1
    assert told["viva_webhooks_total", "messages.upsert", "duplicate"] == 1
    assert told["viva_journal_batch_rows_bucket", "5.0"] == 0
    assert told["viva_journal_batch_rows_bucket", "10.0"] == 1
    assert told["viva_journal_batch_rows_sum",] == 7


def test_two_servers_in_one_process_share_nothing() -> None:
    one, two = (Services(settings("postgresql:///never")) for _ in range(2))
    one.runtime.counters.resumes += 1

    assert families(one)["viva_resumes_total"].samples[0].value == 1
    assert families(two)["viva_resumes_total"].samples[0].value == 0


def test_whatever_arrives_the_labels_of_webhooks_stay_few() -> None:
    known = {*(event.name for event in EVENTS), *GO_KINDS}
    assert {label_of(f"event.{number}") for number in range(10_000)} == {"other"}
    assert {label_of(event) for event in known} == known

    most = (len(known) + len({"other", "unread"})) * len(get_args(WebhookOutcome))
    assert most < 1000


def test_a_value_on_a_bound_belongs_below_it() -> None:
    buckets = Buckets((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.1):
        buckets.observe(value)

    assert buckets.counts == [2, 2, 1]
    assert buckets.total == pytest.approx(6.6)


async def test_a_loop_that_is_held_up_is_late() -> None:
    lag = LoopLag()
    task = asyncio.create_task(lag.run())
    while not sum(lag.seconds.counts):
        await asyncio.sleep(0.01)
    before = lag.seconds.total
    held_up = asyncio.get_running_loop().time() + 0.6
    while asyncio.get_running_loop().time() < held_up:
        pass
    await asyncio.sleep(0.01)
    task.cancel()

    assert lag.seconds.total - before > 0.2


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def names_in(expression: str) -> set[str]:
    """Find the metrics in an expression: neither labels, nor functions, nor words."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|without)\s*\([^)]*\)", "", expression)
    return set(re.findall(r"\b[a-z]+_[a-z_]+\b(?!\s*\()", bare))


def base_name(name: str) -> str:
    stem = re.sub(r"_(bucket|sum|count)$", "", name)
    return stem if stem in FAMILIES else name


@pytest.mark.parametrize("expression", list(expressions()))
def test_every_expression_of_the_dashboard_is_about_metrics_that_exist(
    expression: str,
) -> None:
    names = names_in(expression)

    assert names
    assert {base_name(name) for name in names} <= FAMILIES.keys()
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)
    assert expression.count('"') % 2 == 0
    for name in names:
        if FAMILIES[base_name(name)].type != "gauge":
            assert re.search(rf"\b(rate|increase)\({name}\b", expression), expression


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {base_name(name) for e in expressions() for name in names_in(e)}

    assert shown == FAMILIES.keys()


def test_the_dashboard_can_be_imported() -> None:
    panels = DASHBOARD["panels"]

    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["gridPos"].keys() == {"x", "y", "w", "h"}
        assert panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["description"]
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "job", "instance"]
