"""Memory that a program has freed stays with the process for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
import likejax as lj

if sys.argv[1] == "kept":
    assert lj.memory.keep_freed()
    assert lj.memory.keep_freed()  # a second time changes nothing

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

work = jax.jit(lambda x, w: jnp.sum(jnp.sin(x @ w) @ w))
x, w = jnp.ones((200_000, 64)), jnp.ones((64, 64))  # 50 MB of working memory for each product
taken = []
for _ in range(9):
    before = pages()
    result = work(x, w).block_until_ready()
    taken.append(pages() - before)
print(sorted(taken[4:])[2], float(result))  # the median, once the process has what it needs
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_a_program_takes_no_new_memory_from_the_system():
    """The same result, with the pages of the first calls.

    A call may take new memory where the free pieces happen to be too small; most calls do not.
    """

    def run(how: str) -> tuple[int, float]:
        command = [sys.executable, "-c", PROGRAM, how]
        environment = {
            name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"
        }
        shown = subprocess.check_output(command, text=True, env=environment)
        pages, result = shown.split()
        return int(pages), float(result)

    (kept, result), (fresh, expected) = run("kept"), run("fresh")
    assert result == expected
    assert fresh > 200_000 * 64 * 4 / 4096  # at least one array each time
    assert kept < fresh / 100
