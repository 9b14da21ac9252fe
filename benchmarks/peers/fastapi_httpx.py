"""The second peer: the first one with httpx in the place of the vendor's client."""

from __future__ import annotations

from benchmarks.peers.fastapi_app import create_app
from benchmarks.peers.httpx_relay import relay
from benchmarks.peers.streaming import respond

app = create_app(relay, respond)
