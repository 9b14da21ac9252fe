"""What a check of the surroundings found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `viva-server doctor`; `detail` never holds a secret.

    With `warn` something is worth a look and nothing is broken.
    """

    name: str
    ok: bool
    detail: str
    warn: bool = False
