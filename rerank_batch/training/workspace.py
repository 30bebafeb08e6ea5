"""The folder beside the result in which a model is trained: what a resume finds and trusts.

    OUT.training/spec.json      what the training is made of; a resume with anything else is refused
    OUT.training/start/         the start model as a cross-encoder, its fresh head included
    OUT.training/checkpoints/   checkpoint-STEP/, whole where it holds the file `whole`
    OUT.training/best/          the best weights so far and their step
    OUT.training/log.jsonl      loss and measure by step
    OUT                         the model, put there in one move when all is done

Knows folders and JSON, no model. One process at a time works in it.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rerank_batch.errors import InputsChanged, RunConflict, StorageError
from rerank_batch.schema import JsonObject

WEIGHTS = "trained.safetensors"

_WHOLE = "whole"
_PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Best:
    """The best model so far: after how many steps, and its measure on the dev split."""

    step: int
    value: float


@dataclass(frozen=True)
class Ended:
    """How training ended: steps done, and why: all steps, no gain any more, or out of time."""

    steps: int
    reason: str


@dataclass(frozen=True)
class Workspace:
    """The places of one training."""

    out: Path

    @property
    def folder(self) -> Path:
        """Everything but the result."""
        return self.out.with_name(self.out.name + ".training")

    @property
    def start(self) -> Path:
        """The start model."""
        return self.folder / "start"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.folder / "checkpoints"

    @property
    def log(self) -> Path:
        """One JSON object per line; see `read_log`."""
        return self.folder / "log.jsonl"

    @contextmanager
    def claimed(self, spec: Mapping[str, Any], resume: bool) -> Iterator[None]:
        """Take the folder for this process and see that it holds the training that is meant.

        Raises:
            RunConflict: the result exists, there is nothing to resume, what is there was not meant
                to be resumed, or another process works on it.
            InputsChanged: the training that is there is made of something else.
            StorageError: the folder cannot be written.
        """
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise RunConflict(f"{self.out} exists already; choose another --out, or remove it")
        there = (self.folder / "spec.json").is_file()
        if resume and not there:
            raise RunConflict(f"there is no training to resume at {self.folder}")
        if there and not resume:
            raise RunConflict(
                f"{self.folder} holds a training that was not finished; go on with --resume, or "
                "remove it"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "lock")
            with lock.acquire(timeout=0):
                if there:
                    self._refuse_other(spec)
                else:
                    _write(self.folder / "spec.json", spec)
                yield
        except Timeout:
            raise RunConflict(f"another process trains in {self.folder}") from None
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be used: {error}") from error

    def decided(self, name: str, decide: Callable[[], str]) -> str:
        """What was decided when the training began, or is now and stays so."""
        file = self.folder / f"{name}.json"
        if not file.is_file():
            _write(file, {name: decide()})
        return str(json.loads(file.read_text(encoding="utf-8"))[name])

    def end(self, ended: Ended) -> None:
        """Write down that training is done; what is left is to measure and to publish."""
        _write(self.folder / "ended.json", asdict(ended))

    def ended(self) -> Ended | None:
        """How training ended; None where it has not."""
        file = self.folder / "ended.json"
        return Ended(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint; what is newer and was cut off is removed."""
        folders = sorted(self.checkpoints.glob(f"{_PREFIX}*"), key=step_of)
        while folders:
            folder = folders.pop()
            if (folder / _WHOLE).is_file():
                return folder
            shutil.rmtree(folder, ignore_errors=True)  # several workers may look at once
        return None

    def checkpoint(self, step: int) -> Path:
        """The checkpoint of a step."""
        return self.checkpoints / f"{_PREFIX}{step}"

    def mark_whole(self, step: int) -> None:
        """Say that everything of a checkpoint is written."""
        (self.checkpoint(step) / _WHOLE).touch()

    def best(self) -> Best | None:
        """The best so far, if any."""
        file = self.folder / "best" / "best.json"
        if not file.is_file():
            return None
        found = json.loads(file.read_text(encoding="utf-8"))
        return Best(found["step"], found["value"])

    def best_weights(self, step: int) -> Path:
        """Where the weights of that step are, or go before `keep_best` names them."""
        folder = self.folder / "best"
        folder.mkdir(exist_ok=True)
        return folder / f"{step}.safetensors"

    def keep_best(self, best: Best) -> None:
        """Name weights that are written the best; older ones go."""
        _write(self.folder / "best" / "best.json", {"step": best.step, "value": best.value})
        for file in (self.folder / "best").glob("*.safetensors"):
            if file != self.best_weights(best.step):
                file.unlink()

    def append(self, **entry: Any) -> None:
        """Add a line to the log."""
        with self.log.open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry) + "\n")

    def read_log(self) -> list[JsonObject]:
        """The log's lines; one that a kill cut off is left out."""
        if not self.log.is_file():
            return []
        lines = self.log.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1] if line.endswith("}")]

    def cut_log(self, step: int) -> None:
        """Forget what was logged after that step: it will be done again."""
        kept = [json.dumps(entry) for entry in self.read_log() if entry["step"] <= step]
        partial = self.log.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        partial.replace(self.log)

    def publish(self, model: Path) -> None:
        """Put the finished model in its place, with the log, and remove the rest."""
        if self.log.is_file():
            shutil.copyfile(self.log, model / "training.jsonl")
        if self.out.is_dir():
            self.out.rmdir()  # it was empty when the training began
        model.replace(self.out)
        shutil.rmtree(self.folder)

    def _refuse_other(self, spec: Mapping[str, Any]) -> None:
        before = json.loads((self.folder / "spec.json").read_text(encoding="utf-8"))
        now = json.loads(json.dumps(spec))
        changed = sorted(
            f"{key}: {before.get(key)!r} then, {now.get(key)!r} now"
            for key in {*before, *now}
            if before.get(key) != now.get(key)
        )
        if changed:
            raise InputsChanged(
                f"{self.folder} was begun with something else:\n"
                + "\n".join(f"  - {line}" for line in changed)
            )


def step_of(checkpoint: Path) -> int:
    """After how many steps a checkpoint was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def _write(file: Path, value: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    partial = file.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as out:
        json.dump(value, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)
