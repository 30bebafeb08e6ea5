"""The table of names and values that most commands end with."""

from collections.abc import Mapping

from rich.table import Table


def facts_table(title: str, facts: Mapping[str, object]) -> Table:
    """Two columns of names and values."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, str(value))
    return table
