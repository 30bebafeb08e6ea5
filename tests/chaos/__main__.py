"""Torment real runs and count what went wrong: `python -m tests.chaos --rounds 30`.

Prints one line per round and a table at the end; exits with 1 if anything was lost, doubled or
changed. With --sabotage the protocol is broken on purpose, and it is the missing violation that is
the failure.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.arena import arena
from tests.chaos.rounds import CATCHES, FAULTS, SCENES, Round, Tally, to_json


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="on each kind of root")
    parser.add_argument("--root", action="append", choices=["folder", "s3"], help="default: both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sabotage", choices=["overwrite", "any-epoch"])
    parser.add_argument("--json", type=Path, help="write the tallies to this file")
    options = parser.parse_args()
    console = Console(highlight=False)
    tallies = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        for kind in options.root or ["folder", "s3"]:
            with arena(Path(folder) / kind, kind, options.sabotage) as victim:
                tally = Tally(kind)
                tallies.append(tally)
                for number in range(options.rounds):
                    seed = f"{options.seed}-{kind}-{number}"
                    round_ = Round(victim, tally, seed, Path(folder))
                    known = len(tally.violations)
                    # Every third round begins with two drivers; broken on purpose, every one.
                    scene = CATCHES.get(options.sabotage) or SCENES[number // 3 % len(SCENES)]
                    round_.play(scene if number % 3 == 0 or options.sabotage else None)
                    found = tally.violations[known:]
                    console.print(
                        f"{seed}: {'; '.join(found) or 'whole'} ({tally.seconds:.0f} s so far, "
                        f"{tally.driver_kills} drivers killed)"
                    )
                    if options.sabotage and tally.violations:
                        break
                    if found:
                        console.print(round_.log.read_text(errors="replace")[-6000:])
    console.print(report(tallies))
    if options.json:
        options.json.write_text("\n".join(map(to_json, tallies)), encoding="utf-8")
    violations = sum(len(tally.violations) for tally in tallies)
    if options.sabotage:
        print(f"broken on purpose ({options.sabotage}): {'caught' if violations else 'NOT CAUGHT'}")
        return 0 if violations else 1
    return 1 if violations else 0


def report(tallies: list[Tally]) -> Table:
    table = Table(title="Chaos", title_justify="left")
    rows: dict[str, list[str]] = {
        "rounds": [str(t.rounds) for t in tallies],
        "with two drivers": [str(t.two_drivers) for t in tallies],
        "drivers killed": [str(t.driver_kills) for t in tallies],
        "workers killed": [str(t.worker_kills) for t in tallies],
        "server killed": [str(t.server_kills) for t in tallies],
        **{name: [str(t.faults[name]) for t in tallies] for name in FAULTS},
        "drivers that gave up": [str(t.failed_drivers) for t in tallies],
        "resumes": [str(t.resumes) for t in tallies],
        "seconds": [f"{t.seconds:.0f}" for t in tallies],
        "violations": [str(len(t.violations)) for t in tallies],
    }
    table.add_column("")
    for tally in tallies:
        table.add_column(tally.kind, justify="right")
    for name, values in rows.items():
        table.add_row(name, *values)
    return table


if __name__ == "__main__":
    sys.exit(main())
