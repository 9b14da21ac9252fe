"""A process that owns an embedded PostgreSQL: prints a line when it runs, then waits.

    python -m tests.embedded_owner DATA_DIR [PG_BIN]

It survives SIGINT, as a server does that still has replies to store. The end of its
standard input stops it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from viva_server.errors import EmbeddedPostgresError
from viva_server.store.embedded.server import EmbeddedPostgres


async def main(data_dir: str, pg_bin: str | None = None) -> None:
    signal.signal(signal.SIGINT, lambda *_: None)
    server = EmbeddedPostgres(Path(data_dir), pg_bin=Path(pg_bin) if pg_bin else None)
    try:
        await server.start()
    except EmbeddedPostgresError as error:
        sys.exit(str(error))
    print(json.dumps({"pid": server.pid, "dsn": server.dsn}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
