"""What is decided once for a run, and stays: modes, caches, verdicts, overrides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar

from rerank_batch.errors import StorageError
from rerank_batch.runs.objects import from_json, to_json
from rerank_batch.runs.run import Run
from rerank_batch.schema import JsonObject
from rerank_batch.storage import new_nonce

T = TypeVar("T")


@dataclass(frozen=True)
class Guard:
    """One guard: what it measures, its limit, and the result.

    ``value`` is None where there was nothing to measure; ``words`` say why, or give the numbers.
    """

    name: str
    limit: float
    value: float | None
    passed: bool
    words: str


@dataclass(frozen=True)
class Verdict:
    """The result of all guards of a run; ``since`` is the run that was the latest then."""

    passed: bool
    guards: tuple[Guard, ...]
    since: str | None = None
    nonce: str = ""

    def to_json(self) -> JsonObject:
        """The object that guards.json and ``--json`` hold."""
        return {**asdict(self), "guards": [asdict(guard) for guard in self.guards]}


@dataclass(frozen=True)
class Override:
    """Who published a run though it failed a guard, and when."""

    who: str
    when: str
    nonce: str = ""


def keep_decision(
    run: Run, what: Literal["mode", "cache"], stage: int, value: Mapping[str, Any]
) -> None:
    """Keep what a stage of the cascade stays with to the run's end, unless that was decided."""
    key = run.key(f"{what}-{stage}.json")
    run.root.create_once(key, to_json({**value, "nonce": new_nonce()}))


def read_decision(
    run: Run, what: Literal["mode", "cache"], stage: int, required: Sequence[str]
) -> JsonObject | None:
    """The decision that was kept first, which must hold those keys; None before."""
    key = run.key(f"{what}-{stage}.json")
    raw = run.root.read(key)
    return None if raw is None else from_json(raw, key, required)


def keep_verdict(run: Run, guards: Sequence[Guard], since: str | None) -> Verdict:
    """Keep what the guards say, once and for all; returns the verdict that was kept first."""
    passed = all(guard.passed for guard in guards)
    verdict = Verdict(passed, tuple(guards), since, new_nonce())
    run.root.create_once(run.key("guards.json"), to_json(verdict.to_json()))
    kept = read_verdict(run)
    if kept is None:
        raise StorageError(f"{run.key('guards.json')} cannot be read")
    return kept


def read_verdict(run: Run) -> Verdict | None:
    """What the guards say; None where they did not look yet, or there are none."""

    def parse(value: JsonObject) -> Verdict:
        return _known(Verdict, value, guards=tuple(_known(Guard, g) for g in value["guards"]))

    return _read(run, "guards.json", ("passed", "guards"), parse)


def read_override(run: Run) -> Override | None:
    """Who published the run though it failed a guard; None where nobody did."""
    return _read(run, "override.json", ("who", "when"), lambda value: _known(Override, value))


def override(run: Run, who: str, when: str) -> None:
    """Let the run be published whatever its guards say, and keep who decided that."""
    decided = Override(who, when, new_nonce())
    run.root.create_once(run.key("override.json"), to_json(asdict(decided)))


def is_held_back(run: Run) -> bool:
    """Whether a guard failed and nobody has overridden it."""
    verdict = read_verdict(run)
    return verdict is not None and not verdict.passed and read_override(run) is None


def _read(
    run: Run, name: str, required: Sequence[str], parse: Callable[[JsonObject], T]
) -> T | None:
    """An object that is written once, where it is there."""
    key = run.key(name)
    raw = run.root.read(key)
    if raw is None:
        return None
    value = from_json(raw, key, required)
    try:
        return parse(value)
    except (TypeError, AttributeError) as error:
        raise StorageError(f"{key} is damaged: {error}") from None


def _known(kind: type[T], value: Mapping[str, Any], **parsed: Any) -> T:
    """A dataclass of the values that it has fields for."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value[name] for name in value if name in names} | parsed)
