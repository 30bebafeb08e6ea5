"""The table of names and values that most commands end with."""

from collections.abc import Iterable, Mapping

from rich.table import Table

from rerank_batch.remarks import Remark
from rerank_batch.storage.layouts import in_words


def facts_table(title: str, facts: Mapping[str, object]) -> Table:
    """Two columns of names and values."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, str(value))
    return table


def files_line(files: Mapping[str, Mapping[str, int]]) -> str:
    """The files of a summary in words, section by section."""
    return ", ".join(f"{section} from {in_words(counts)}" for section, counts in files.items())


def remark_lines(remarks: Iterable[Remark]) -> dict[str, object]:
    """The line of the remarks of a summary, where there are any."""
    lines = "\n".join(map(str, remarks))
    return {"remarks": lines} if lines else {}
