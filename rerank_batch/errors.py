"""Failures a user can act on, one class and one exit code per kind.

A message names the bad value, where it was found and what to do next. Anything that is not one of
these is a defect of ours and leaves with exit code 1 and a traceback.
"""

from typing import Any


class RerankBatchError(Exception):
    """Base of every failure that is reported as one clear message."""

    exit_code = 1
    meaning = "unexpected failure (a defect: please report it with the traceback)"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without its __init__, whatever arguments that takes."""
        return remade, (type(self), self.args, vars(self))


def remade(
    kind: type[RerankBatchError], arguments: tuple[Any, ...], state: dict[str, Any]
) -> RerankBatchError:
    """An error as it was raised elsewhere: its ``args`` and its attributes."""
    error = kind.__new__(kind)
    error.args = arguments
    vars(error).update(state)
    return error


class ConfigError(RerankBatchError):
    """The configuration or the command line cannot be used."""

    exit_code = 2
    meaning = "the command line or the configuration is wrong"


class InputError(RerankBatchError):
    """A corpus, query log or judgement file is missing, damaged or has the wrong shape."""

    exit_code = 3
    meaning = "an input file is missing, damaged or has the wrong columns"


class IndexMismatch(RerankBatchError):
    """The index was built from another corpus or encoder, or its files changed."""

    exit_code = 4
    meaning = "the index does not match the corpus, the encoder or its own checksums"


class RunConflict(RerankBatchError):
    """The run id is taken, owned by someone else, or not in the state the command needs."""

    exit_code = 5
    meaning = "the run exists already, is unfinished, or belongs to another driver"


class InputsChanged(RunConflict):
    """A run is to go on with other inputs or settings than it began with."""

    exit_code = 9
    meaning = "the run began with other inputs or settings; nothing was written"


class StorageError(RerankBatchError):
    """The root or a file under it cannot be read or written."""

    exit_code = 6
    meaning = "storage cannot be read or written"


class ModelError(RerankBatchError):
    """A model cannot be found, loaded or used for what was asked."""

    exit_code = 7
    meaning = "a model cannot be found, loaded or used"


class ComputeError(RerankBatchError):
    """The distributed execution failed, or has too few resources to start."""

    exit_code = 8
    meaning = "the distributed execution failed"


class RunDamaged(RerankBatchError):
    """What lies in storage is not what the run's final.json says."""

    exit_code = 10
    meaning = "a finished run does not hold what it lists"


class TooManyRejects(RerankBatchError):
    """More of the log was rejected than ``limits.max_rejects`` allows."""

    exit_code = 11
    meaning = "more was rejected than limits.max_rejects allows"


class ServiceError(RerankBatchError):
    """A reranking service refuses, fails on every try, or answers what cannot be right."""

    exit_code = 12
    meaning = "a reranking service refused or kept failing; what was paid for is kept"


class SpendCapReached(RerankBatchError):
    """The next call would go beyond ``cost.cap``."""

    exit_code = 13
    meaning = "cost.cap is reached; what was paid for is kept"


class NotGoodEnough(RerankBatchError):
    """A run's measures are not what `evaluate` was asked to hold them to."""

    exit_code = 14
    meaning = "a run is not as good as --fail-under or --no-worse-than asks; its report is written"


class LabelsLeak(RerankBatchError):
    """What was labelled for training stands in the test split as well."""

    exit_code = 15
    meaning = "a query or a relevant document is in more than one split of the labels"


class GuardsFailed(RerankBatchError):
    """A run is complete, and one of its ``guards`` kept it from becoming the latest."""

    exit_code = 16
    meaning = "the run is complete but fails a guard, so it is not published"


EXIT_CODES: dict[int, str] = {
    0: "success",
    **{
        kind.exit_code: kind.meaning
        for kind in (
            RerankBatchError,
            ConfigError,
            InputError,
            IndexMismatch,
            RunConflict,
            StorageError,
            ModelError,
            ComputeError,
            InputsChanged,
            RunDamaged,
            TooManyRejects,
            ServiceError,
            SpendCapReached,
            NotGoodEnough,
            LabelsLeak,
            GuardsFailed,
        )
    },
}
