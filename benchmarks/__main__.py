"""Measure the server beside its peers: ``python -m benchmarks [--quick]``."""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine, parts, report, scenarios, webhooks
from benchmarks.postgres import postgres
from benchmarks.run import Stage, run_rounds, staged
from benchmarks.subjects import SUBJECTS, WEBHOOK_PEER, choose

RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one minute, one round")
    many = f"default 3, with --quick 1, with --webhooks {webhooks.ROUNDS}"
    parser.add_argument("--rounds", type=int, help=many)
    parser.add_argument("--subjects", help="comma-separated: " + ", ".join(SUBJECTS))
    parser.add_argument("--scenarios", help="comma-separated, default all")
    parser.add_argument("--server", help="viva-server to run, default this one's")
    parser.add_argument("--webhooks", action="store_true", help="webhooks instead")
    parser.add_argument("--parts", action="store_true", help="where the CPU goes")
    return parser.parse_args()


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Run what was asked for; all children have ended when this returns."""
    with postgres() as cluster, tempfile.TemporaryFile() as log:
        facts = machine.facts(cluster)
        try:
            with staged(cluster, log) as stage:
                found = _records(stage, options)
        except BaseException:
            _show_end_of(log)
            raise
    return {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())} | {
        "machine": facts,
        "records": found,
    }


def _records(stage: Stage, options: argparse.Namespace) -> list[dict[str, Any]]:
    rounds = options.rounds or (1 if options.quick else 3)
    if options.parts:
        return parts.run_rounds(stage, options.server, rounds)
    if options.webhooks:
        pair = [*choose(["viva"], options.server), WEBHOOK_PEER]
        return webhooks.run_rounds(stage, pair, options.rounds or webhooks.ROUNDS)
    default = "viva,openai" if options.quick else ",".join(SUBJECTS)
    chosen = choose((options.subjects or default).split(","), options.server)
    every = scenarios.QUICK if options.quick else scenarios.FULL
    names = (options.scenarios or ",".join(s.name for s in every)).split(",")
    return run_rounds(stage, chosen, [s for s in every if s.name in names], rounds)


def _show_end_of(log: Any) -> None:
    log.seek(0)
    print(log.read()[-4000:].decode(errors="replace"), file=sys.stderr)


def _raise_exit(signum: int, _: object) -> None:
    sys.exit(128 + signum)


def main() -> None:
    """Measure, store the result as JSON, print the table."""
    options = arguments()
    # A SIGTERM must still end the children.
    signal.signal(signal.SIGTERM, _raise_exit)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    result = measured(options)
    kind = "webhooks" if options.webhooks else "parts" if options.parts else "streams"
    shows = {"webhooks": webhooks.table, "parts": parts.table, "streams": report.table}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{kind}-{result['at'].replace(':', '')}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{shows[kind](result['records'])}\n\n{path.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
