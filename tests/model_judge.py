"""What openai-python's own client makes of recorded answers, beside ours."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import openai

from tests.fakes.recorded import Case, RecordedModel

AT_ONCE = 12
PATIENCE_SECONDS = 120.0
HEAD = (
    "| case | status, reason | text | openai-python | its text |",
    "|---|---|---|---|---|",
)


async def judged(cases: Sequence[Case], pace: float) -> dict[str, tuple[str, str]]:
    """Let openai-python read each case; give its end and its text.

    Its end is a finish reason, or the class of what it raises. It asks three times
    at most, as we do.
    """
    plain = next(case for case in cases if case.name == "plain")
    async with (
        RecordedModel([*cases, plain], pace=pace) as model,
        openai.AsyncOpenAI(
            base_url=str(model.url), api_key="k", timeout=PATIENCE_SECONDS
        ) as client,
    ):
        some = asyncio.Semaphore(AT_ONCE)

        async def read(case: Case) -> tuple[str, str]:
            async with some:
                return await _read(client, case.name)

        found = await asyncio.gather(*map(read, cases))
    return dict(zip([case.name for case in cases], found, strict=True))


async def _read(client: openai.AsyncOpenAI, name: str) -> tuple[str, str]:
    text, end = "", "no reason"
    try:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": name}], stream=True
        )
        async for chunk in stream:
            for choice in chunk.choices or ():
                # Nothing that the types promise is checked by their client.
                text += str(getattr(choice.delta, "content", None) or "")
                end = choice.finish_reason or end
    except Exception as error:  # whatever it raises is what is asked for
        end = type(error).__name__
    return str(end), text


def table(
    ours: Mapping[str, tuple[str, str]], theirs: Mapping[str, tuple[str, str]]
) -> str:
    """Make the table of docs/models.md, a row per case."""
    rows = [
        f"| `{name}` | {end} | {_cell(text)} | {theirs[name][0]} |"
        f" {'the same' if theirs[name][1] == text else _cell(theirs[name][1])} |"
        for name, (end, text) in sorted(ours.items())
    ]
    return "\n".join([*HEAD, *rows])


def _cell(text: str) -> str:
    if not text:
        return ""
    shown = text if len(text) <= 40 else f"{text[:8]}… ({len(text)} characters)"
    # Half a surrogate pair is no character.
    shown = shown.encode("utf-8", "replace").decode()
    return f"`{shown}`".replace("|", "\\|")
