"""The chaos rounds in their short form; the long one is `make chaos`."""

from pathlib import Path

import pytest

from tests.chaos.arena import arena
from tests.chaos.rounds import CATCHES, SCENES, Round, Tally


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["s3", "folder"])
def test_nothing_is_lost_doubled_or_changed(kind: str, tmp_path: Path) -> None:
    """One round: two drivers at once, then what chance brings of killed drivers and workers."""
    tally = torment(kind, tmp_path, rounds=1)
    assert tally.violations == []
    assert tally.two_drivers == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["folder", "s3"])
@pytest.mark.parametrize("sabotage", ["overwrite", "any-epoch"])
def test_a_broken_protocol_is_caught(kind: str, sabotage: str, tmp_path: Path) -> None:
    tally = torment(kind, tmp_path, rounds=8, sabotage=sabotage)
    assert tally.violations
    print(f"\n{sabotage} on {kind}: {tally.violations[0]}")


def torment(kind: str, folder: Path, rounds: int, sabotage: str | None = None) -> Tally:
    tally = Tally(kind)
    with arena(folder / kind, kind, sabotage) as victim:
        for number in range(rounds):
            scene = CATCHES[sabotage] if sabotage else SCENES[number % len(SCENES)]
            Round(victim, tally, f"ci-{kind}-{number}", folder).play(scene)
            if sabotage and tally.violations:
                break
    return tally
