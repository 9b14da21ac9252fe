"""The bodies that Evolution's versions send, with the normal form each must give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NOW = 1761048603.0

FOLDER = Path(__file__).parents[2] / "data" / "evolution"

SAMPLES: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(FOLDER.glob("*.json"))
}


def tail_of(sample: dict[str, Any]) -> str:
    """Return the path that Evolution appends to the URL with by-events on."""
    tail = sample["meta"]["path_tail_by_events"]
    return f"/{tail}" if tail else ""
