"""What a client may hold back at its end of a connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket

SEND_BUFFER_BYTES = 128 * 1024
USER_TIMEOUT_MS = 20_000


def bound_buffers(transport: asyncio.BaseTransport) -> None:
    """Keep what a slow client can hold small, and notice one that has vanished.

    The kernel takes about 4 MB for a client that does not read, and waits over 40 s for
    one whose network is gone, unless it is told otherwise.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    with contextlib.suppress(OSError):  # the client may be gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS
            )
