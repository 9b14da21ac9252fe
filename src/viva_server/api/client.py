"""Where a request comes from, as far as it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from aiohttp import web

from viva_server.config import Network

Address = IPv4Address | IPv6Address

_PROXY_HEADERS = ("X-Forwarded-For", "Forwarded", "Via")


def client_address(request: web.BaseRequest, trusted: Sequence[Network] = ()) -> str:
    """Return the client's address, or "unknown" (a Unix socket has none).

    `X-Forwarded-For` is read from its end, where our own proxies write: up to the
    first address that is none of `trusted`. What stands before it may be forged.
    """
    peer = _address(request.remote or "")
    if peer is None:
        return "unknown"
    if not _is_in(peer, trusted):
        return str(peer)
    return str(_through_proxies(peer, _forwarded(request), trusted))


def is_local(request: web.BaseRequest, trusted: Sequence[Network] = ()) -> bool:
    """Tell whether the client is on this machine.

    A request through a proxy that is not in `trusted` is not: the proxy may well be
    on this machine and its client anywhere.
    """
    peer = _address(request.remote or "")
    if peer is None or not peer.is_loopback:
        return False
    if not _is_in(peer, trusted):
        return not any(name in request.headers for name in _PROXY_HEADERS)
    found = _address(client_address(request, trusted))
    return found is not None and found.is_loopback


def _through_proxies(
    peer: Address, forwarded: Sequence[str], trusted: Sequence[Network]
) -> Address:
    for word in reversed(forwarded):
        if (hop := _address(word)) is None:
            break
        peer = hop
        if not _is_in(hop, trusted):
            break
    return peer


def _forwarded(request: web.BaseRequest) -> list[str]:
    return ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")


def _address(word: str) -> Address | None:
    word = word.strip()
    return _parsed(word) or _parsed(_without_port(word))


def _parsed(word: str) -> Address | None:
    try:
        address = ip_address(word)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        # Without its zone ("%eth0"), which is free text.
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


def _without_port(word: str) -> str:
    host, _, port = word.rpartition(":")
    if not port.isdigit():
        host = word
    return host.removeprefix("[").removesuffix("]")


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
