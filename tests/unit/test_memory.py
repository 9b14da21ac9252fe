"""A program that asks for it gives back the memory of a large body."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from viva_server.commands.serve import give_back_large_blocks

def pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

if sys.argv[1] == "gives":
    give_back_large_blocks()
largest = b"x" * (24 * 2**20)
del largest
large, behind = b"x" * (16 * 2**20), b"x" * 2**20
before = pages()
del large
print((before - pages()) * resource.getpagesize())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize("gives", [True, False])
def test_a_large_block_goes_back_though_another_lies_behind_it(gives: bool) -> None:
    argument = "gives" if gives else "keeps"
    command = [sys.executable, "-c", PROGRAM, argument]
    given_back = int(subprocess.check_output(command))
    assert (given_back > 15 * 2**20) == gives
