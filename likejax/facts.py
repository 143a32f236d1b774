"""Facts about an object as an HTML table, as notebooks show it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


def facts_table(facts: Mapping[str, str], *, caption: str = "") -> str:
    """Returns a table of two columns.

    Args:
      facts: From the name of a fact to the fact.
      caption: Line above the table; empty for none.

    Example:
      >>> from likejax.facts import facts_table
      >>> facts_table({"n": "3"}, caption="a < b").count("a &lt; b")
      1
    """
    cell = "text-align:left;vertical-align:top"
    rows = [
        f'<tr><th style="{cell}">{escape(name)}</th><td style="{cell}">{escape(fact)}</td></tr>'
        for name, fact in facts.items()
    ]
    style = "text-align:left;font-weight:bold"
    head = f'<caption style="{style}">{escape(caption)}</caption>' if caption else ""
    return f"<table>{head}{''.join(rows)}</table>"
