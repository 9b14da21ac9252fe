"""The loads that every subject gets."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Scenario:
    """So many streams of so many tokens each, which begin together.

    Those that stand ``apart`` begin when they come, and so end one by one. With
    ``hold_seconds`` they do too, all are cut so long after the last of them has text,
    and only memory is looked at, in a process that has carried no other load.
    """

    name: str
    streams: int
    tokens: int
    every_ms: int
    opens_per_second: int = 200
    hold_seconds: float | None = None
    apart: bool = False
    only: frozenset[str] = frozenset()

    @property
    def deadline_seconds(self) -> float:
        """Five times what the model needs, for a subject that does not keep pace."""
        opening = self.streams / self.opens_per_second
        if self.hold_seconds is not None:
            return 90.0
        return opening + 5 * self.tokens * self.every_ms / 1000 + 20


_OURS = frozenset({"viva"})
CPU = Scenario("cpu", streams=200, tokens=250, every_ms=40)
DELAY = Scenario("delay", streams=1000, tokens=70, every_ms=100)
ENDS = Scenario("ends", 200, tokens=50, every_ms=40, opens_per_second=20, apart=True)
MEMORY = Scenario("memory", streams=2000, tokens=60, every_ms=2000, hold_seconds=2)
COMMITS_100 = Scenario("commits_100", 100, tokens=60, every_ms=100, only=_OURS)
COMMITS_400 = Scenario("commits_400", 400, tokens=60, every_ms=100, only=_OURS)
WARM_UP = Scenario("warm_up", streams=20, tokens=20, every_ms=20)

FULL = (MEMORY, CPU, ENDS, DELAY, COMMITS_100, COMMITS_400)
# Peers that do not keep pace with the second one would take most of the minute.
QUICK = (CPU, ENDS, replace(DELAY, tokens=50, only=_OURS))
