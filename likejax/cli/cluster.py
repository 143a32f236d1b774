"""``--distributed``: one command in several processes, which share its work."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from likejax.cli.options import UsageError
from likejax.processes import agreed

_LOST = re.compile(r"(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|DEADLINE_EXCEEDED): ")
"""How messages of XLA begin where processes cannot talk to each other."""
_TIMEOUTS: dict[str, Any] = {
    # the others stop within a minute when one is killed
    "heartbeat_timeout_seconds": 20,
    # and wait at the end while the first one draws pictures and writes
    "shutdown_timeout_seconds": 24 * 3600,
}


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """A context in which this process is one of several, of which only the first one prints.

    It is entered before any device is touched.

    Raises:
      UsageError: If LIKEJAX_PROCESSES does not name the processes.
      ConnectionError: If another process ends before this one.
    """
    import jax

    _join()
    # JAX takes the signal to agree on a last checkpoint; training has its own way, the rest none
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.ExitStack() as stack:
        if jax.process_index() != 0:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        try:
            with _output_to_stderr():
                agreed(False)  # connects all processes, before one of them works for long
            yield
        except (ValueError, RuntimeError) as error:
            if not _LOST.match(str(error)):
                raise
            raise ConnectionError(
                "another process of this command has ended, or cannot be reached: see what it "
                "printed. Start the same command in all processes again: a run goes on from its "
                f"last checkpoint. {error}"
            ) from error


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """A context for the library that connects processes: its C++ prints a line to the output."""
    if sys.__stdout__ is None or sys.__stderr__ is None:
        yield  # the shell closed one of them, and its number may be a connection's now
        return
    sys.__stdout__.flush()
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(output, 1)
        os.close(output)


def is_joined() -> bool:
    """Returns whether this process is one of several."""
    if "jax" not in sys.modules:
        return False
    import jax

    return jax.distributed.is_initialized() and jax.process_count() > 1


def leave(code: int) -> NoReturn:
    """Ends this process at once, so that the others see that it is gone and end as well.

    The regular end of Python would wait for them, while they wait for this process.

    Args:
      code: Exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _join() -> None:
    """Makes this process one of several."""
    import jax

    given = os.environ.get("LIKEJAX_PROCESSES")
    if given is None:
        jax.distributed.initialize(**_TIMEOUTS)  # the launcher of the cluster knows the processes
        return
    try:
        address, count, index = given.split(",")
        places: dict[str, Any] = {"num_processes": int(count), "process_id": int(index)}
        jax.distributed.initialize(address, **places, **_TIMEOUTS)
    except ValueError as error:
        raise UsageError(
            f"expected LIKEJAX_PROCESSES=HOST:PORT,COUNT,INDEX, got {given!r} ({error})"
        ) from error
