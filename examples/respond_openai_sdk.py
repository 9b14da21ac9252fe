"""A responder on the openai package, for what the built-in one does not do (tools …).

    export VIVA_DATABASE_URL=postgresql://localhost/viva VIVA_JWT_SECRET=…
    export OPENAI_BASE_URL=http://localhost:11434/v1 OPENAI_API_KEY=… MODEL=…
    python examples/respond_openai_sdk.py

For plain chat set VIVA_MODEL_URL and VIVA_MODEL_NAME instead: no code is needed, and a
token costs less.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import openai
from aiohttp import web
from openai.types.chat import ChatCompletionMessageParam

import viva_server


class SdkResponder:
    """Holds the client, which belongs to the host's application."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._client = openai.AsyncOpenAI(max_retries=2)

    async def lifespan(self, _: web.Application) -> AsyncIterator[None]:
        async with self._client:
            yield

    async def __call__(
        self, conversation: viva_server.Conversation
    ) -> AsyncIterator[str]:
        finish_reason = None
        try:
            async with await self._client.chat.completions.create(
                model=self._model, messages=_messages(conversation), stream=True
            ) as stream:
                async for chunk in stream:
                    for choice in chunk.choices[:1]:
                        if choice.delta.content:
                            yield choice.delta.content
                        finish_reason = choice.finish_reason or finish_reason
        except openai.APITimeoutError:
            raise viva_server.ResponderError("upstream_timeout") from None
        except openai.APIStatusError as error:
            retryable = error.status_code == 429 or error.status_code >= 500
            code = "upstream_unavailable" if retryable else "upstream_refused"
            raise viva_server.ResponderError(code, retryable=retryable) from None
        except openai.OpenAIError:
            raise viva_server.ResponderError("upstream_unavailable") from None
        if finish_reason is None:
            # A broken stream can end without an error: that end is none.
            raise viva_server.ResponderError("upstream_error")
        raise viva_server.EndOfReply("length" if finish_reason == "length" else "stop")


def _messages(
    conversation: viva_server.Conversation,
) -> list[ChatCompletionMessageParam]:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Responda em uma frase."}
    ]
    for message in conversation.messages:
        if message.role == "user":
            messages.append({"role": "user", "content": message.content})
        else:
            messages.append({"role": "assistant", "content": message.content})
    return messages


def make_app() -> web.Application:
    responder = SdkResponder(os.environ.get("MODEL", "gpt-4o-mini"))
    app = web.Application()
    app.cleanup_ctx.append(responder.lifespan)
    viva_server.setup(app, respond=responder)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), port=int(os.environ.get("PORT", "8080")))
