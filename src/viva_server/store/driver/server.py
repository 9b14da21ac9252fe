"""What the promise that nothing is lost needs of the server."""

from __future__ import annotations

from dataclasses import dataclass

_OLDEST, _NEWEST = 14, 18


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself; `version` is such as 150004 for 15.4.

    `synchronous_commit` is that of our own connections, which force it on.
    """

    version: int
    encoding: str
    fsync: bool
    synchronous_commit: str

    def problems(self) -> list[str]:
        """Return why this server cannot be used, one sentence each."""
        found = []
        major = self.version // 10_000
        if not _OLDEST <= major <= _NEWEST:
            found.append(
                f"PostgreSQL {major} is not supported, {_OLDEST} to {_NEWEST} are"
            )
        if self.encoding != "UTF8":
            found.append(f"the database's encoding is {self.encoding}, not UTF8")
        return found
