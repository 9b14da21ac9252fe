"""Every fenced block of the documents is run or checked, or says why it is not."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from tests.acceptance.scenes import SCENES
from tests.documents import REASONS, Block, all_blocks
from tests.postgres import PostgresServer
from tests.programs import ROOT, free_port, program

SHELLS = {"sh", "bash", "console"}
LANGUAGES = {"python", "json", *SHELLS}
BLOCKS = all_blocks()


def left(*languages: str) -> list[Block]:
    """Give the blocks that nothing else checks."""
    return [
        block
        for block in BLOCKS
        if block.language in languages
        and block.marked("not run") is None
        and block.marked("checked by") is None
    ]


def named(blocks: list[Block]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", blocks, ids=[block.id for block in blocks])


@named(BLOCKS)
def test_every_block_is_checked_or_says_why_it_is_not(block: Block) -> None:
    reason, test = block.marked("not run"), block.marked("checked by")
    if reason is not None:
        assert reason in REASONS
    elif test is not None:
        assert (ROOT / test).is_file()
        assert re.search(
            rf"{re.escape(block.document.name)}", (ROOT / test).read_text()
        )
    else:
        assert block.language in LANGUAGES
    scene = block.marked("scene")
    assert scene is None or (scene in SCENES and block.language in SHELLS)
    assert block.marked("fragment") is None or block.language == "python"


@named([block for block in BLOCKS if block.language == "python"])
def test_python_compiles(block: Block) -> None:
    compile(
        block.code, block.id, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )


@named([block for block in BLOCKS if block.marked("fragment") is not None])
def test_a_fragment_names_only_what_there_is(block: Block) -> None:
    import viva_server

    for name in re.findall(r"\bviva_server\.(\w+)", block.code):
        assert hasattr(viva_server, name), name


@named([each for each in left("python") if each.marked("fragment") is None])
async def test_a_program_listens_until_it_is_stopped(
    block: Block, database_url: str, tmp_path: Path
) -> None:
    port = free_port()
    assert "port=8080" in block.code
    path = tmp_path / "program.py"
    path.write_text(block.code.replace("port=8080", f"port={port}"), "utf-8")
    environment = {"VIVA_DATABASE_URL": database_url}
    async with program(str(path), port=port, environment=environment) as running:
        assert await running.stopped() == 0
    assert "Traceback" not in running.output


def test_json_is_json() -> None:
    for block in left("json"):
        json.loads(block.code)


def commands(block: Block) -> str:
    """Give what is typed: in a console's block the lines behind a `$`."""
    if block.language != "console":
        return block.code
    lines = block.code.splitlines()
    return "\n".join(line[2:] for line in lines if line.startswith(("$ ", "> ")))


@named(left(*SHELLS))
async def test_the_shells_lines_work(block: Block, postgres: PostgresServer) -> None:
    scene = SCENES[block.marked("scene") or "server"]
    async with scene(postgres) as place:
        await place.run(commands(block))
