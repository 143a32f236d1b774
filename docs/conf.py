"""Sphinx settings. `make docs` builds strictly and without a network: a warning is an error."""

from __future__ import annotations

import importlib.metadata
import os
import re
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

project = "likejax"
author = "The likejax authors"
version = release = importlib.metadata.version("likejax")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_math_renderer = "mathml"  # which browsers draw themselves: MathJax would come from a network
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = f"likejax {version}"
html_show_copyright = False

# Notebooks are kept without outputs. `make docs-full` runs those that have changed and shows what
# they print and draw, `make docs` shows their text and code.
nb_execution_mode = "cache" if os.environ.get("LIKEJAX_RUN_NOTEBOOKS") else "off"
nb_execution_cache_path = str(Path(__file__).parent / "_build/notebooks")
nb_execution_timeout = 1_800
nb_execution_raise_on_error = True
nb_output_stderr = "remove"  # progress bars
nb_merge_streams = True

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # docstrings say what the shapes mean
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields that have docstrings of their own stand once
napoleon_attr_annotations = False  # shapes as strings are no reStructuredText
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r".*")]  # jaxtyping's shapes and other libraries have no pages

_fields: dict[str, list[str]] = {}


def _hide_field(app, what, name, obj, options, lines) -> None:
    """Keeps the docstring of a field from Napoleon, which reads "word: text" as a type."""
    if what == "attribute":
        _fields[name] = list(lines)
        lines.clear()


def _show_field(app, what, name, obj, options, lines) -> None:
    """Gives the docstring of a field back."""
    if what == "attribute":
        lines[:] = _fields.pop(name, list(lines))


_FUNCTION = re.compile(
    r"((?<!<msub>)<mi>(?:exp|log)</mi>|<msub><mi>log</mi><mn>\d</mn></msub>)(?!<mo)"
)
"""A function whose argument follows without a parenthesis."""


def _mathml(node, display: str) -> str:
    """The equation as MathML, with the space behind log and exp that TeX sets there."""
    text = convert(node.astext(), display=display).replace(r"\_", "_")
    return _FUNCTION.sub(r'\1<mspace width="0.17em"></mspace>', text)


def _write_inline(translator, node) -> None:
    translator.body.append(_mathml(node, "inline"))
    raise nodes.SkipNode


def _write_block(translator, node) -> None:
    translator.body.append(f'<div style="margin: 1em 0">{_mathml(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app) -> None:
    """Adds the writers of equations, and puts the two functions of fields around Napoleon's."""
    app.add_html_math_renderer("mathml", (_write_inline, None), (_write_block, None))
    # Napoleon's priority is 500
    app.connect("autodoc-process-docstring", _hide_field, priority=400)
    app.connect("autodoc-process-docstring", _show_field, priority=600)
