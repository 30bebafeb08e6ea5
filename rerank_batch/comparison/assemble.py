"""The last stage of a comparison: the lists of the systems become result rows."""

import numpy as np
import pyarrow as pa

from rerank_batch import ranking, schema
from rerank_batch.comparison.stages import Floats32, System, candidates_of
from rerank_batch.data.qrels import Qrels
from rerank_batch.index.open import Index
from rerank_batch.pipeline.assemble import metrics_of
from rerank_batch.ranking import Documents
from rerank_batch.rerankers.cascade import QueryCandidates
from rerank_batch.schema import TableRow

_NO_CANDIDATES = QueryCandidates(ranking.NO_DOCUMENTS, np.empty((1, 0), np.float32))


class AssembleSystems:
    """Turns the lists of the systems into the rows of a comparison, with measures where there are
    judgements."""

    def __init__(
        self,
        systems: tuple[System, ...],
        index: Index,
        measures: tuple[str, ...],
        qrels: Qrels | None,
        threads: int = 1,
    ) -> None:
        self._systems = systems
        self._texts = index.texts()
        self._measures = measures
        self._qrels = qrels or {}

    def __call__(self, table: pa.Table) -> pa.Table:
        """SEARCHED or COMPARED in; `schema.comparison` and ``reject`` out."""
        names = tuple(system.name for system in self._systems)
        output = schema.comparison(self._measures, names)
        rejected = [reason is not None for reason in table.column(schema.REJECT).to_pylist()]
        by_system = candidates_of(table, self._systems)
        candidates: list[list[str]] = []
        columns: dict[str, list[TableRow]] = {"systems": [], "retrieved": []}
        rankings: dict[str, list[list[str]]] = {name: [] for name in names}
        for row in range(table.num_rows):
            of_row = {name: listed[row] for name, listed in by_system.items()}
            if rejected[row]:
                of_row = dict.fromkeys(names, _NO_CANDIDATES)
            union, _ = ranking.distinct([each.documents for each in of_row.values()])
            ids = list(self._texts.ids(union))
            candidates.append(ids)
            lists = {name: _list(f, union) for name, f in of_row.items()}
            columns["systems"].append(lists)
            columns["retrieved"].append({name: _start(f, union) for name, f in of_row.items()})
            for name, listed in lists.items():
                rankings[name].append([ids[place] for place in listed["places"]])
        metrics = metrics_of(table, self._measures, self._qrels, rankings)
        table = table.select([*schema.PLAN.names, schema.REJECT])
        for name, column in {"candidates": candidates, **columns, "metrics": metrics}.items():
            table = table.append_column(name, pa.array(column, output.field(name).type))
        return table


def _list(candidates: QueryCandidates, union: Documents) -> TableRow:
    """The system's list as `schema.PLACED`."""
    best = ranking.cascade_order(candidates.scores, candidates.documents)
    scores = ranking.deepest(candidates.scores)
    if len(candidates.scores) > 1:
        read = ~np.isnan(candidates.scores[1:]).all(axis=0)
        scores = np.where(read, scores, np.float32(np.nan))
    return _placed(candidates.documents[best], scores[best], union)


def _start(candidates: QueryCandidates, union: Documents) -> TableRow:
    return _placed(candidates.documents, candidates.scores[0], union)


def _placed(documents: Documents, scores: Floats32, union: Documents) -> TableRow:
    return {
        "places": np.searchsorted(union, documents).astype(np.int32).tolist(),
        "scores": schema.nullable(scores),
    }
