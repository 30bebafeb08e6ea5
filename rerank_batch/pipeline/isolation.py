"""Poison work: a batch that fails is tried again, then halved down to the queries that fail.

Those are rejected with the class of their error and everybody else goes on. Knows stages and
tables, not Ray. Nothing here logs a message of an error: it may quote a query.
"""

import logging

import pyarrow as pa

from rerank_batch import schema, tally
from rerank_batch.errors import ComputeError, RerankBatchError
from rerank_batch.pipeline.stage import Stage

logger = logging.getLogger(__name__)


def run_isolated(stage: Stage, table: pa.Table, name: str, output: pa.Schema) -> pa.Table:
    """What the stage makes of the table, with the rows rejected that it cannot work on.

    Errors of ours concern the whole run (a wrong model, storage that is gone) and pass through.

    Raises:
        ComputeError: no row of several gets through: the stage is broken, not the queries.
    """
    try:
        return schema.check(stage(table), output, f"stage {name}")
    except RerankBatchError:
        raise
    except Exception as error:
        tally.count(f"batch of {name} tried again after {type(error).__name__}")
        logger.warning("a batch of %s failed with %s: again", name, type(error).__name__)
        failed = error
    done = _halve(stage, table, name, output)
    alive = sum(reason is None for reason in _reasons(table))
    if alive > 1 and _failures(done, name) == alive:
        raise ComputeError(
            f"stage {name} fails on each of the {alive} queries of a batch, the last with "
            f"{type(failed).__name__}: the model or the machine is the cause, not a query. "
            "Run again with -v for the workers' logs"
        ) from failed
    return done


def _halve(stage: Stage, table: pa.Table, name: str, output: pa.Schema) -> pa.Table:
    try:
        return schema.check(stage(table), output, f"stage {name}")
    except RerankBatchError:
        raise
    except Exception as error:
        if table.num_rows == 1:
            logger.warning("a query fails in %s with %s: rejected", name, type(error).__name__)
            return _rejected(table, output, f"{name}_failed:{type(error).__name__}")
    middle = table.num_rows // 2
    halves = (table.slice(0, middle), table.slice(middle))
    done = [_halve(stage, half, name, output) for half in halves]
    # A stage hands columns on as nullable that the schema has as never null.
    return pa.concat_tables(done, promote_options="default")


def _rejected(table: pa.Table, output: pa.Schema, reason: str) -> pa.Table:
    """The rows as the stage would hand them on for a reject: lists empty, the reason given."""
    columns = []
    for field in output:
        if field.name == schema.REJECT:
            columns.append(pa.array([old or reason for old in _reasons(table)], pa.string()))
        elif field.name in table.column_names:
            columns.append(table.column(field.name))
        elif pa.types.is_list(field.type):
            columns.append(pa.array([[]] * table.num_rows, field.type))
        else:
            columns.append(pa.nulls(table.num_rows, field.type))
    return pa.table(columns, schema=output)


def _reasons(table: pa.Table) -> list[str | None]:
    if schema.REJECT not in table.column_names:
        return [None] * table.num_rows
    return list(table.column(schema.REJECT).to_pylist())


def _failures(table: pa.Table, name: str) -> int:
    reasons = table.column(schema.REJECT).to_pylist()
    return sum(bool(reason and reason.startswith(f"{name}_failed:")) for reason in reasons)
