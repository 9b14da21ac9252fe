"""X-Forwarded-For counts only as far as trusted proxies wrote it."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import BaseRequest
from multidict import CIMultiDict

from viva_server.api.request import client_address, is_local

PROXIES = [ip_network("10.0.0.0/8"), ip_network("127.0.0.1"), ip_network("fd00::/8")]


def request(remote: str, *forwarded: str, name: str = "X-Forwarded-For") -> BaseRequest:
    headers = CIMultiDict((name, value) for value in forwarded)
    return make_mocked_request("GET", "/", headers).clone(remote=remote)


@pytest.mark.parametrize(
    ("remote", "forwarded", "expected"),
    [
        ("203.0.113.7", (), "203.0.113.7"),
        ("203.0.113.7", ("1.2.3.4",), "203.0.113.7"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("1.2.3.4",), "1.2.3.4"),
        ("10.0.0.1", ("6.6.6.6, 1.2.3.4",), "1.2.3.4"),
        ("10.0.0.1", ("6.6.6.6, 1.2.3.4, 10.9.9.9",), "1.2.3.4"),
        ("10.0.0.1", ("6.6.6.6", "1.2.3.4 ,10.9.9.9"), "1.2.3.4"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        ("10.0.0.1", ("1.2.3.4, junk",), "10.0.0.1"),
        ("10.0.0.1", ("1.2.3.4:8080",), "1.2.3.4"),
        ("10.0.0.1", ("[2001:db8::1]:443",), "2001:db8::1"),
        ("10.0.0.1", ("[2001:db8::1]",), "2001:db8::1"),
        ("10.0.0.1", ("fe80::1%\x1b[31m",), "fe80::1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("::ffff:10.0.0.1", ("1.2.3.4",), "1.2.3.4"),
        ("fd00::1", ("2001:db8::2",), "2001:db8::2"),
        ("", (), "unknown"),
        ("/run/viva.sock", ("1.2.3.4",), "unknown"),
    ],
)
def test_the_client_is_the_first_hop_that_is_no_trusted_proxy(
    remote: str, forwarded: tuple[str, ...], expected: str
) -> None:
    assert client_address(request(remote, *forwarded), PROXIES) == expected


def test_nobody_is_trusted_by_default() -> None:
    assert client_address(request("127.0.0.1", "1.2.3.4")) == "127.0.0.1"


@pytest.mark.parametrize("remote", ["127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine_is_local(remote: str) -> None:
    assert is_local(request(remote))


def test_an_unknown_proxy_on_this_machine_makes_nobody_local() -> None:
    for name in ("x-forwarded-for", "Forwarded", "Via"):
        assert not is_local(request("127.0.0.1", "127.0.0.1", name=name))


def test_a_forged_address_makes_nobody_local() -> None:
    assert not is_local(request("127.0.0.1", "127.0.0.1, 1.2.3.4"), PROXIES)
    assert not is_local(request("203.0.113.7", "127.0.0.1"), PROXIES)
    assert not is_local(request("", "127.0.0.1"), PROXIES)
