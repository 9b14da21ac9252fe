#!/bin/sh
# Installs what the tests need from Debian, where apt is there and something is missing.
set -eu
missing=
for program in chromium curl faketime haproxy jq nginx openssl pgbouncer strace; do
    PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
# What loses packets in a network namespace, and makes one.
PATH="$PATH:/usr/sbin" command -v nft >/dev/null 2>&1 || missing="$missing nftables"
PATH="$PATH:/usr/sbin" command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v systemd-analyze >/dev/null 2>&1 || missing="$missing systemd"
command -v pg_dump >/dev/null 2>&1 || missing="$missing postgresql-client"
# The tests of the stream with npm's parsers, and of the page's modules.
command -v npm >/dev/null 2>&1 || missing="$missing nodejs npm"
[ -z "$missing" ] && exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "Missing:$missing. Install it with your package manager; its tests fail without it." >&2
    exit 0
fi
run=
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "Missing:$missing. Install it as root: apt-get install$missing" >&2
        exit 0
    fi
    run="sudo -n"
fi
$run apt-get update -qq
# shellcheck disable=SC2086
$run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
