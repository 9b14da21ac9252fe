"""Become another user, then end with the parent, then become another program.

A file of its own, run by a fresh interpreter and never imported by the server: what a
child must do between fork and exec is unsafe in a process with threads (`preexec_fn`),
`setpriv --pdeathsig` is not everywhere, and a launcher is the same on every Linux.

Arguments: signal, parent's pid, uid (-1: stay who you are), gid, program, arguments.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Replace this process by the command; it gets the signal when the parent ends."""
    number, parent, uid, gid = map(int, arguments[:4])
    command = arguments[4:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # Not before setuid, which clears it: prctl(2).
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl failed")
    if os.getppid() != parent:
        sys.exit("the parent ended first")
    os.execv(command[0], command)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
