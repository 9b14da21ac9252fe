#!/usr/bin/env bash
# Builds the wheel, installs it into an empty environment, loads every query there, and
# runs every example and the README's program on it.
set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir "$place" .
.venv/bin/python -m venv "$place/empty"
"$place/empty/bin/python" -m pip install --quiet "$place"/*.whl
cd "$place"
empty/bin/python - <<'PYTHON'
import viva_server
from viva_server.web.pages import page_files
from viva_server.store.migrate import load_migrations
from viva_server.store.driver.queries import load_queries

print("wheel:", viva_server.__version__, len(load_queries()), "queries,",
      len(load_migrations()), "migrations,", len(page_files()), "files of the page")
PYTHON
empty/bin/viva-server --version
wheel=$(echo "$place"/viva_server-*.whl)
empty/bin/python -m pip install --quiet "$wheel[embedded,test]" uvloop
cd "$checkout"
"$place/empty/bin/python" -c 'import sys, viva_server
assert viva_server.__file__.startswith(sys.prefix), viva_server.__file__'
"$place/empty/bin/python" -m pytest -q -p no:cacheprovider tests/acceptance/test_examples.py
