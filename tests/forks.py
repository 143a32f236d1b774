"""Processes that start at once: copies of one that has imported likejax and what it uses at times.

In that one no device was touched, so a copy is as fresh as a new process.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import sys
from pathlib import Path

import diffrax  # noqa: F401 - what programs import is here for the copies
import matplotlib.pyplot  # noqa: F401
import sklearn.datasets  # noqa: F401

import likejax  # noqa: F401
from likejax.nn import initial

# As ``conftest`` has it: Python seldom looks for garbage, and initial weights are cut from few.
gc.set_threshold(50_000, 10, 10)
gc.freeze()
initial.SMALLEST_DRAW = 12

START = multiprocessing.get_context("forkserver")
"""Starts processes as copies."""
START.set_forkserver_preload([__name__])


def write_to(printed: str, warned: str) -> None:
    """Sends what this process prints to a file, warnings and errors to another or the same."""
    for stream, path in ((1, printed), (2, warned)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)


def run_program(code: str, directory: str, printed: str, warned: str) -> None:
    """Runs a program in a directory, as the main module of its process."""
    write_to(printed, warned)
    os.chdir(directory)
    exec(compile(code, "<program>", "exec"), vars(sys.modules["__main__"]))


def run_notebook(path: str, directory: str, printed: str, warned: str) -> None:
    """Runs the cells of a notebook in small, as its kernel would, without Jupyter around it."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Shell(InteractiveShell):
        def enable_gui(self, gui: str | None = None) -> None:
            """Pictures need no window."""

    write_to(printed, warned)
    os.chdir(directory)
    os.environ["LIKEJAX_SMOKE"] = "1"
    shell = Shell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    for cell in json.loads(Path(path).read_text())["cells"]:
        if cell["cell_type"] == "code":
            shell.run_cell("".join(cell["source"])).raise_error()
