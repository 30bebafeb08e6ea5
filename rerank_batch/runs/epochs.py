"""The epochs of a run: one for each driver that owned it."""

from dataclasses import asdict, dataclass
from pathlib import Path

from rerank_batch.errors import (
    RunConflict,
    StorageError,
)
from rerank_batch.runs.lease import Owner, owner_from
from rerank_batch.runs.objects import (
    CommitName,
    epoch_key,
    from_json,
    run_key,
    to_json,
)
from rerank_batch.storage import Root


@dataclass(frozen=True)
class Epoch:
    """A driver's turn with a run: who that is, and which earlier commits count."""

    nonce: str
    owner: Owner
    accepts: tuple[CommitName, ...]

    def to_json(self) -> bytes:
        """The epoch object."""
        accepts = [str(name) for name in self.accepts]
        return to_json({"nonce": self.nonce, "owner": asdict(self.owner), "accepts": accepts})

    @classmethod
    def from_json(cls, raw: bytes, where: str) -> "Epoch":
        """An epoch object read back; `StorageError` where it is damaged."""
        value = from_json(raw, where, ("nonce", "owner", "accepts"))
        owner = owner_from(value["owner"], where)
        try:
            accepts = tuple(CommitName.parse(name) for name in value["accepts"])
        except (StorageError, TypeError, AttributeError) as error:
            raise StorageError(f"{where} is damaged: {error}") from None
        return cls(value["nonce"], owner, accepts)


def newest_epoch(root: Root, run_id: str) -> int:
    """The number of a run's newest epoch; 0 before its first driver."""
    names = [Path(key).stem for key in root.sizes(run_key(run_id, "epochs/"))]
    return max((int(name) for name in names if name.isdigit()), default=0)


def read_epoch(root: Root, run_id: str, number: int) -> Epoch:
    """An epoch that a run has had."""
    key = epoch_key(run_key(run_id, ""), number)
    raw = root.read(key)
    if raw is None:
        raise StorageError(f"{key} is missing")
    return Epoch.from_json(raw, key)


def refuse_if_taken_over(root: Root, run_id: str, epoch: int) -> None:
    """Stop a driver, or a worker that outlived its driver, whose run is somebody else's now.

    The epoch's list of accepted commits is what keeps results right; this only saves the work.

    Raises:
        RunConflict: a later epoch exists.
    """
    if root.size(epoch_key(run_key(run_id, ""), epoch + 1)) is not None:
        raise RunConflict(f"run {run_id} was taken over by another driver; this one stops")
