"""Descriptions of models and adapters on a terminal."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fast_jukebox.models.description import DescriptionTable, describe_adapter, describe_model
from fast_jukebox.utils.text import printable
from fast_jukebox_cli.model import model_config

_LONGEST_LINE = 2000
"""Characters of a line of a card that are shown."""


def description(name: str) -> list[RenderableType]:
    """Description of a model, or of an adapter, without its weights, as things that rich can print."""
    found = describe_adapter(name) or describe_model(name, model_config(name))
    # What strangers wrote is no markup, and steers no terminal.
    lines = [Text(printable(line, _LONGEST_LINE)) for line in found.lines]
    return [Text(f"{printable(name)}\n{printable(found.summary)}"), *map(_table, found.tables), *lines]


def _table(own: DescriptionTable) -> Table:
    table = Table(title=own.title, title_justify="left", title_style="bold")
    table.add_column("")
    for column in own.columns:
        table.add_column(column, justify="right", overflow="fold")
    for label, values in own.rows.items():
        table.add_row(label, *values)
    return table
