"""Remarks: inputs that can be read but look wrong, for the summary of a command.

A remark never stops a job; what has to stop it is an error (`errors`), and what loses a row is a
counted reject.
"""

from dataclasses import asdict, dataclass
from typing import Any

LEFT_ALONE = "default_column_left_alone"
"""The kind of remark on a column of a usual name that holds something else."""

IN_SOME_FILES = "column_in_some_files"
"""That on a column that may be missing, where some files have it and some do not."""


@dataclass(frozen=True)
class Remark:
    """One suspicious thing about an input.

    ``section`` is the part of the configuration that names the input (corpus, queries, qrels,
    retrieval.exclude …), ``kind`` a fixed name that programs can test for, ``count`` the number of
    files, rows or ids concerned, and ``text`` one sentence with the file or column, what was done
    with it, and what to change if that is not what was meant.
    """

    section: str
    kind: str
    count: int
    text: str

    def __str__(self) -> str:
        return f"{self.section}: {self.text}"

    def as_json(self) -> dict[str, Any]:
        """The object that ``--json`` and final.json hold."""
        return asdict(self)
