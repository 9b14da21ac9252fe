#!/usr/bin/env bash
# Builds the wheel, installs it into an empty environment and loads every query there.
set -euo pipefail
cd "$(dirname "$0")/.."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir "$place" .
.venv/bin/python -m venv "$place/empty"
"$place/empty/bin/python" -m pip install --quiet "$place"/*.whl
cd "$place"
empty/bin/python - <<'PYTHON'
import viva_server
from viva_server.api.page import page_files
from viva_server.store.migrate import load_migrations
from viva_server.store.queries import load_queries

print("wheel:", viva_server.__version__, len(load_queries()), "queries,",
      len(load_migrations()), "migrations,", len(page_files()), "files of the page")
PYTHON
empty/bin/viva-server --version
