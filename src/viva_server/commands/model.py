"""The check of the model, for `viva-server doctor`."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec

from viva_server.config import Config
from viva_server.store.checks import Check

_SECONDS = 10.0
_MAX_BYTES = 4 * 2**20
_NAME = "model"


async def check_model(config: Config) -> Check:
    """Ask the model's server for its list of models; nothing is generated."""
    if config.model_url is None:
        return Check(_NAME, True, "none is set: the built-in responder answers")
    host = f"{config.model_url.host}:{config.model_url.port}"
    try:
        status, body = await _list_models(config)
    except TimeoutError:
        return Check(_NAME, False, f"{host} does not answer in {_SECONDS:g} s")
    except aiohttp.ClientConnectorError as error:
        reason = error.os_error.strerror or type(error.os_error).__name__
        return Check(_NAME, False, f"{host} cannot be reached: {reason}")
    except (aiohttp.ClientError, OSError) as error:
        return Check(_NAME, False, f"{host} cannot be used: {type(error).__name__}")
    except ValueError:  # of a header; its text might hold the key
        detail = "VIVA_MODEL_API_KEY cannot be sent to VIVA_MODEL_URL"
        return Check(_NAME, False, detail)
    return _judge(config, host, status, body)


def _judge(config: Config, host: str, status: int, body: bytes) -> Check:
    if status in {401, 403}:
        detail = f"{host} refuses the key with {status}: see VIVA_MODEL_API_KEY"
        return Check(_NAME, False, detail)
    if status >= 500:
        return Check(_NAME, False, f"{host} answers {status}")
    if status != 200:
        # Not all have a list of models; that it answers says enough.
        detail = f"{host} answers, but {status} to GET /models: is VIVA_MODEL_URL …/v1?"
        return Check(_NAME, True, detail, warn=True)
    names = _names(body)
    if names and config.model_name not in names:
        detail = f"{host} does not list {config.model_name}"
        return Check(_NAME, True, detail, warn=True)
    return Check(_NAME, True, f"{host} answers, {config.model_name}")


async def _list_models(config: Config) -> tuple[int, bytes]:
    assert config.model_url is not None, "asked before"
    url = config.model_url.joinpath("models").with_query(config.model_url.query)
    headers = {"Accept": "application/json"}
    if config.model_api_key is not None:
        headers["Authorization"] = f"Bearer {config.model_api_key}"
    async with (
        asyncio.timeout(_SECONDS),
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers, allow_redirects=False) as response,
    ):
        return response.status, await response.content.read(_MAX_BYTES)


def _names(body: bytes) -> set[str]:
    """Read the ids of an OpenAI-compatible list; none of any other body."""
    try:
        listed: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return set()
    rows = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(rows, list):
        return set()
    return {str(row["id"]) for row in rows if isinstance(row, dict) and "id" in row}
