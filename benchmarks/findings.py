"""The figures of one load, worked out from what its readers kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.replies import Reads, Reply, read_reply

Window = tuple[float, float]


def spread_ms(seconds: Iterable[float]) -> dict[str, float] | None:
    """p50, p99 and maximum in milliseconds; None without any value."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    return {
        "p50": round(1000 * ordered[len(ordered) // 2], 2),
        "p99": round(1000 * ordered[len(ordered) * 99 // 100], 2),
        "max": round(1000 * ordered[-1], 2),
    }


def judge(
    streams: Sequence[Reads], tokens: int, window: Window | None
) -> dict[str, Any]:
    """Judge all streams; the window is the time of steady load."""
    replies = [read_reply(reads, tokens) for reads in streams]
    whole = [reply for reply in replies if reply.problem is None]
    problems = [reply.problem for reply in replies if reply.problem]
    return {
        "streams": len(replies),
        "whole": len(whole),
        "problems": problems[:3],
        "tokens": sum(len(reply.token_times) for reply in replies),
        "events": sum(reply.events for reply in replies),
        "reply_bytes": sum(len(reply.text.encode()) for reply in replies),
        "first_token": spread_ms(r.token_ages[0] for r in replies if r.token_ages),
        "delay_all": spread_ms(age for reply in replies for age in reply.token_ages),
        "done": spread_ms(
            reply.done_at - reply.token_times[-1] + reply.token_ages[-1]
            for reply in whole
            if reply.done_at is not None
        ),
        "digests": sorted(reply.sha256 for reply in whole),
        **_steady(replies, window),
    }


def _steady(replies: list[Reply], window: Window | None) -> dict[str, Any]:
    if window is None or window[0] >= window[1]:
        return {"window_seconds": 0.0, "window_tokens": 0, "delay": None}
    start, end = window
    ages = [
        age
        for reply in replies
        for at, age in zip(reply.token_times, reply.token_ages, strict=True)
        if start <= at < end
    ]
    return {
        "window_seconds": round(end - start, 3),
        "window_tokens": len(ages),
        "delay": spread_ms(ages),
    }
