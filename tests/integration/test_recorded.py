"""What the command lines do is what they did when it was recorded; see `recorded.record`."""

from pathlib import Path

import pytest

from tests.integration.recorded.compare import differences
from tests.integration.recorded.record import kept_of, record

BEFORE = Path(__file__).parent / "recorded" / "before"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_help_exit_codes_and_keys_are_those_that_were_recorded(tmp_path: Path) -> None:
    record(tmp_path / "all")
    kept_of(tmp_path / "all", tmp_path / "kept")
    found = list(differences(BEFORE, tmp_path / "kept"))
    assert not found, "\n\n".join(found)
