"""What the WhatsApp side counts of itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

from viva_server.whatsapp.events.table import EVENTS, GO_KINDS

WebhookOutcome = Literal[
    "stored",
    "duplicate",
    "kept",
    "ignored",
    "refused",
    "unauthorized",
    "unavailable",
]
"""`kept`: in memory until it is stored; `ignored`: too large; `refused`: no JSON."""

TurnOutcome = Literal["answered", "fixed_text", "skipped", "again", "dead"]
"""How one run of a turn ended.

`fixed_text`: a fixed answer instead of the model's; `skipped`: nobody is answered
(handover, limit, too old); `again`: it will run again; `dead`: it was the last run.
"""

SendKind = Literal["sent", "retry", "unknown", "dead"]
"""How one attempt to send ended."""

UNREAD: Final = "unread"
"""The event of a webhook that was answered before its body was read."""

OTHER: Final = "other"
"""The event of a webhook that is not in the table: labels must stay few."""

KNOWN_EVENTS: Final = frozenset({*(event.name for event in EVENTS), *GO_KINDS})


@dataclass(slots=True)
class WhatsAppCounters:
    """Of one process; each method is called once per thing that happened."""

    webhooks: Counter[tuple[str, WebhookOutcome]] = field(default_factory=Counter)
    turns: Counter[TurnOutcome] = field(default_factory=Counter)
    sends: Counter[SendKind] = field(default_factory=Counter)

    def webhook(self, event: str, outcome: WebhookOutcome) -> None:
        """Count a delivery that was answered."""
        is_known = event in KNOWN_EVENTS or event == UNREAD
        self.webhooks[event if is_known else OTHER, outcome] += 1

    def turn(self, outcome: TurnOutcome) -> None:
        """Count a run of a turn that ended."""
        self.turns[outcome] += 1

    def send(self, outcome: SendKind) -> None:
        """Count an attempt to send."""
        self.sends[outcome] += 1
