# Sets PYTHON to the first interpreter of version 3.11 or newer that has venv.
PYTHON=
for candidate in "${VIVA_PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        PYTHON=$candidate
        break
    fi
done
if [ -z "$PYTHON" ]; then
    echo "viva_server needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv)." >&2
    exit 1
fi
