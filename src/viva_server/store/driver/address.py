"""Where PostgreSQL is: the DSN taken apart, host names resolved off the event loop."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import psycopg2
from psycopg2.extensions import parse_dsn

from viva_server.errors import ConfigError, StoreUnavailableError

Parameters = dict[str, str]  # libpq's connection parameters


def parse_address(dsn: str) -> Parameters:
    """Return libpq's parameters of a URL or a DSN.

    Raises:
        ConfigError: it is neither; its text is not repeated, it may hold a password.
    """
    try:
        return dict(parse_dsn(dsn))
    except psycopg2.Error:
        problem = "the database's address is neither a PostgreSQL URL nor a DSN"
        raise ConfigError([problem]) from None


async def resolve(parameters: Parameters) -> list[Parameters]:
    """Return one set of parameters for each address, in the order to try them.

    libpq would resolve a name in the event loop's thread, and aiopg hangs when the
    first of two addresses refuses; with `hostaddr` neither happens. `host` stays, for
    the server's certificate and the password file.

    Raises:
        StoreUnavailableError: no host name has an address.
        ConfigError: the numbers of hosts and ports differ.
    """
    if "hostaddr" in parameters or not parameters.get("host"):
        return [parameters]
    hosts = parameters["host"].split(",")
    ports = parameters.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise ConfigError(["the database's address has more hosts than ports"])
    targets = [
        {**parameters, **address, "host": host, "port": port}
        for host, port in zip(hosts, ports, strict=True)
        for address in await _addresses(host)
    ]
    if not targets:
        raise StoreUnavailableError("the database's host name has no address")
    return targets


async def _addresses(host: str) -> list[Parameters]:
    if not host or host.startswith(("/", "@")):  # a unix socket's folder
        return [{}]
    try:
        return [{"hostaddr": str(ipaddress.ip_address(host))}]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    # A dict keeps the resolver's order and drops repeats.
    return [{"hostaddr": name} for name in dict.fromkeys(str(f[4][0]) for f in found)]
