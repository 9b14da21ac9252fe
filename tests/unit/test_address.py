from __future__ import annotations

import pytest

from viva_server.errors import ConfigError
from viva_server.store.driver.address import parse_address, resolve


def test_a_url_and_a_dsn_are_read_alike() -> None:
    url = parse_address("postgresql://ana:se%20cret@db:5433/viva?sslmode=require")
    dsn = "host=db port=5433 user=ana password='se cret' dbname=viva sslmode=require"
    assert url == parse_address(dsn)


def test_an_unreadable_address_is_refused_without_being_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address("host=db passwort=geheim")
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_addresses_and_sockets_need_no_resolver() -> None:
    parameters = {"host": "::1,/run/postgresql,10.0.0.1", "port": "5432,5433,"}
    assert await resolve(parameters) == [
        {"host": "::1", "hostaddr": "::1", "port": "5432"},
        {"host": "/run/postgresql", "port": "5433"},
        {"host": "10.0.0.1", "hostaddr": "10.0.0.1", "port": ""},
    ]


@pytest.mark.parametrize("parameters", [{}, {"host": "db", "hostaddr": "10.0.0.1"}])
async def test_what_libpq_settles_alone_stays(parameters: dict[str, str]) -> None:
    assert await resolve(parameters) == [parameters]


async def test_hosts_and_ports_must_match() -> None:
    with pytest.raises(ConfigError):
        await resolve({"host": "10.0.0.1,10.0.0.2,10.0.0.3", "port": "1,2"})
