"""Memory that is given back to the system when it is not used any more."""

from __future__ import annotations

import ctypes
import sys

# glibc's mallopt(3). By itself the threshold grows with each large block that is freed,
# to 32 MiB; below it a block lies among others, and what is freed there stays taken.
_M_MMAP_THRESHOLD = -3
_OWN_PAGES_BYTES = 256 * 2**10


def give_back_large_blocks() -> None:
    """Let each large block be pages of its own, which go back when it is freed.

    For the whole process, so only for a program of our own. Without effect where the
    C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES_BYTES)
