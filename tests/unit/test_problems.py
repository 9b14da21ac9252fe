"""Every error becomes one RFC 9457 answer that tells nothing of the inside."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from viva_server.api.edge import problem_response, to_problem
from viva_server.api.problems import Problem
from viva_server.auth import ScopeError
from viva_server.errors import (
    AuthError,
    KeyReusedError,
    NotFoundError,
    OverloadedError,
    ResponderError,
    StoppingError,
    StoreUnavailableError,
    TooManyRepliesError,
    TransientStoreError,
    VivaError,
)


def members(response: web.Response) -> dict[str, Any]:
    assert isinstance(response.body, bytes)
    value: dict[str, Any] = json.loads(response.body)
    return value


def test_an_answer_has_every_member_of_the_contract() -> None:
    problem = Problem(
        "reply_in_progress",
        "A reply is being read.",
        errors=[("/mensagem", "must wait")],
        message_id="m",
    )

    response = problem_response(problem, "r-1")

    assert response.status == 409
    assert response.content_type == "application/problem+json"
    assert members(response) == {
        "message_id": "m",
        "type": "urn:viva:problem:reply_in_progress",
        "title": "Conflict",
        "status": 409,
        "detail": "A reply is being read.",
        "code": "reply_in_progress",
        "request_id": "r-1",
        "retryable": False,
        "errors": [{"pointer": "/mensagem", "message": "must wait"}],
    }


def test_any_text_can_be_answered() -> None:
    problem = Problem("bad_request", "\ud800\0\n", errors=[("/\udfff", "x")])

    assert members(problem_response(problem, "r"))["detail"] == "\ud800\0\n"


def test_an_extra_member_never_replaces_one_of_the_standard() -> None:
    problem = Problem("bad_request", title="mine")

    assert members(problem_response(problem, "r"))["title"] == "Bad Request"


@pytest.mark.parametrize(
    ("error", "status", "code", "header", "retryable"),
    [
        (AuthError("secret"), 401, "unauthorized", "WWW-Authenticate", False),
        (ScopeError("admin"), 403, "insufficient_scope", "WWW-Authenticate", False),
        (StoreUnavailableError("secret"), 503, "unavailable", "Retry-After", True),
        (TransientStoreError("secret"), 503, "unavailable", "Retry-After", True),
        (ResponderError("upstream_timeout"), 502, "upstream_timeout", None, True),
        (ResponderError("x", retryable=False), 502, "x", None, False),
        (Problem("validation_error", "d"), 422, "validation_error", None, False),
        (web.HTTPNotFound(), 404, "not_found", None, False),
        (web.HTTPMethodNotAllowed("PUT", ["GET"]), 405, "method_not_allowed", "Allow",
         False),
        (web.HTTPRequestEntityTooLarge(1), 413, "too_large", None, False),
        (web.HTTPGone(), 410, "http_410", None, False),
    ],
    ids=repr,
)  # fmt: skip
def test_an_expected_error_has_its_problem(
    error: Exception, status: int, code: str, header: str | None, retryable: bool
) -> None:
    problem = to_problem(error)

    assert problem is not None
    assert (problem.status, problem.code) == (status, code)
    assert problem.retryable is retryable
    assert header is None or header in problem.headers
    assert "secret" not in str(members(problem_response(problem, "r")))


@pytest.mark.parametrize("error", [ValueError("x"), OSError(), web.HTTPFound("/")])
def test_what_nobody_expected_has_none(error: Exception) -> None:
    assert to_problem(error) is None


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFoundError("session"), 404, "session_not_found"),
        (NotFoundError("message"), 404, "message_not_found"),
        (KeyReusedError(), 422, "idempotency_key_reused"),
        (TooManyRepliesError(), 429, "too_many_replies"),
        (OverloadedError(), 503, "unavailable"),
        (StoppingError(), 503, "unavailable"),
    ],
)
def test_what_the_chat_refuses_has_its_status(
    error: VivaError, status: int, code: str
) -> None:
    problem = to_problem(error)
    assert problem is not None
    assert (problem.status, problem.code) == (status, code)
    assert ("Retry-After" in problem.headers) is (status in {429, 503})
