"""Requests that nobody thought of are answered as the OpenAPI document says."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.chat_host import PREFIX, chat_host, token
from tests.dictation import saying
from tests.openapi import Document

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
SECONDS = 240.0  # it takes 10 on a quiet machine of two cores


@pytest.mark.timeout(SECONDS + 30)
async def test_schemathesis_finds_no_answer_that_is_not_documented(
    database_url: str, tmp_path: Path
) -> None:
    async with chat_host(database_url, saying("oi")) as host:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("schemathesis"),
            "run",
            f"{host.origin}{PREFIX}/openapi.json",
            f"--header=Authorization: Bearer {token(scope='admin')}",
            f"--checks={','.join(CHECKS)}",
            "--phases=examples,coverage,fuzzing",
            "--max-examples=3",
            "--seed=1",
            "--no-color",
            "--warnings=off",
            cwd=tmp_path,  # it leaves files behind
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(SECONDS):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    assert process.returncode == 0, output.decode()
    # It leaves out the operation that it has the document from.
    operations = len(list(Document().operations())) - 1
    assert f"Tested: {operations}" in output.decode(), output.decode()
