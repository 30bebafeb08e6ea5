"""Who may learn from what: queries in groups, groups in splits, and the check that nothing leaks.

Queries belong together that say nearly the same, or (by default) that share a relevant document: a
model that was trained on one would be tested on what it has seen. A group goes to a split by a hash
of its name, so that neither order nor machine matters. The check reads what was written and knows
nothing of how it was split.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from rerank_batch.config import LabelSplitConfig
from rerank_batch.errors import InputError
from rerank_batch.labels.rows import DEV, SPLITS, TEST, TRAIN
from rerank_batch.labels.similarity import similar_pairs
from rerank_batch.schema import JsonObject

_NAMED = 5


@dataclass(frozen=True)
class SplitQuery:
    """A query as it is split: its ids (the first names it), its text, its relevant documents."""

    query_ids: Sequence[str]
    text: str
    positives: Collection[str]


@dataclass(frozen=True)
class HeldOut:
    """What belongs to the test split whatever the hash says: ids of queries, and documents."""

    query_ids: Collection[str] = frozenset()
    documents: Collection[str] = frozenset()


@dataclass(frozen=True)
class Splits:
    """Per query its group and split; ``strictest`` has of every relevant document the number in
    `SPLITS` of the strictest split that has it as a positive. ``withheld`` is the same of documents
    that are to be no negatives in looser splits either, with ``shared: drop``."""

    groups: list[str]
    splits: list[str]
    strictest: Mapping[str, int]
    withheld: Mapping[str, int]

    def is_held_out(self, document: str, split: str) -> bool:
        """Whether a stricter split than this one has the document as a positive."""
        return self.strictest.get(document, 0) > SPLITS.index(split)


def split_queries(
    queries: Sequence[SplitQuery],
    config: LabelSplitConfig,
    seed: int,
    held_out: HeldOut | None = None,
) -> Splits:
    """Group the queries and give each group its split.

    With ``shared: together`` queries that share a relevant document are of one group. With ``drop``
    they are not, and a document that is relevant in a stricter split is to be left out of others:
    as a positive it would leak, and as a negative alone a model would learn to rank it last.

    Raises:
        InputError: a split that was asked for got no query; the message says why.
    """
    held_out = held_out or HeldOut()
    members = _components(queries, config, held_out)
    names: dict[int, str] = {}
    is_test: set[int] = set()
    for query, member in zip(queries, members, strict=True):
        name = query.query_ids[0]
        names[member] = min(names.get(member, name), name)
        together = config.shared == "together"
        if any(alias in held_out.query_ids for alias in query.query_ids) or (
            together and any(document in held_out.documents for document in query.positives)
        ):
            is_test.add(member)
    chosen = {
        member: TEST if member in is_test else _split_of(name, config, seed)
        for member, name in names.items()
    }
    splits = [chosen[member] for member in members]
    _refuse_empty(splits, members, config)
    strictest = dict.fromkeys(held_out.documents, SPLITS.index(TEST))
    for query, split in zip(queries, splits, strict=True):
        for document in query.positives:
            strictest[document] = max(strictest.get(document, 0), SPLITS.index(split))
    withheld = {document: number for document, number in strictest.items() if number}
    return Splits(
        [names[member] for member in members],
        splits,
        strictest,
        withheld if config.shared == "drop" else {},
    )


def _components(
    queries: Sequence[SplitQuery], config: LabelSplitConfig, held_out: HeldOut
) -> list[int]:
    """The number of each query's group: who is joined by similar text or a shared document."""
    edges = [similar_pairs([query.text for query in queries], config.similarity)]
    nodes = len(queries)
    if config.shared == "together":
        documents: dict[str, int] = {}
        links = [
            (number, nodes + documents.setdefault(document, len(documents)))
            for number, query in enumerate(queries)
            for document in query.positives
        ]
        edges.append(np.array(links, dtype=np.int64).reshape(-1, 2))
        nodes += len(documents)
    joined = np.concatenate(edges)
    ones = np.ones(len(joined), dtype=np.int8)
    graph = coo_matrix((ones, (joined[:, 0], joined[:, 1])), shape=(nodes, nodes))
    _, members = connected_components(graph, directed=False)
    found: list[int] = members[: len(queries)].tolist()
    return found


def _split_of(group: str, config: LabelSplitConfig, seed: int) -> str:
    digest = hashlib.blake2b(f"{seed}\0{group}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    if share < config.test:
        return TEST
    return DEV if share < config.test + config.dev else TRAIN


def _refuse_empty(splits: list[str], members: list[int], config: LabelSplitConfig) -> None:
    wanted = {TRAIN: 1.0 - config.dev - config.test, DEV: config.dev, TEST: config.test}
    for split, share in wanted.items():
        if share > 0 and split not in splits:
            largest = Counter(members).most_common(1)[0][1]
            how = (
                "they share relevant documents or have nearly the same words; with "
                "labels.split.shared: drop shared documents are left out of train instead"
                if config.shared == "together"
                else "they have nearly the same words"
            )
            raise InputError(
                f"labels: no query fell into {split} (labels.split.{split}: {share:g}): "
                f"{len(splits)} queries make {len(set(members))} groups, the largest of {largest} "
                f"queries, because {how}. Give more queries, other shares or another labels.seed"
            )


@dataclass(frozen=True)
class WrittenQuery:
    """A query as it was written: its ids, text, split, and the documents it has as positives."""

    query_ids: Sequence[str]
    text: str
    split: str
    positives: Collection[str]


@dataclass
class LeakCheck:
    """What was compared and what leaks; ``leaks`` names kind and ids, at most five of a kind."""

    queries: dict[str, int]
    positives: dict[str, int]
    similarity: float
    counts: dict[str, int] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing leaks."""
        return not any(self.counts.values())

    def found(self, kind: str, what: str) -> None:
        """Note a leak."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self.counts[kind] <= _NAMED:
            self.leaks.append(f"{kind}: {what}")

    def to_json(self) -> JsonObject:
        """For the dataset card and final.json."""
        return {"passed": self.passed, **vars(self)}


SAME_QUERY = "the same query"
SIMILAR_QUERY = "nearly the same query"
SHARED_DOCUMENT = "a document of a stricter split as a positive"


def check_leaks(
    written: Iterable[WrittenQuery], similarity: float, held_out: HeldOut | None = None
) -> LeakCheck:
    """Look for queries, near-duplicate queries and relevant documents in more than one split.

    ``held_out`` counts as test. Near duplicates have at least that Jaccard similarity of words.
    """
    held_out = held_out or HeldOut()
    rows = list(written)
    counted = Counter(row.split for row in rows)
    positives: dict[str, set[str]] = {split: set() for split in SPLITS}
    for row in rows:
        positives[row.split].update(row.positives)
    check = LeakCheck(
        {split: counted[split] for split in SPLITS},
        {split: len(positives[split]) for split in SPLITS},
        similarity,
    )
    owners: dict[str, str] = dict.fromkeys(held_out.query_ids, TEST)
    for row in rows:
        for query_id in row.query_ids:
            if (owner := owners.setdefault(query_id, row.split)) != row.split:
                check.found(SAME_QUERY, f"{query_id} is in {owner} and {row.split}")
    for one, other in _across(rows, similarity):
        check.found(
            SIMILAR_QUERY,
            f"{one.query_ids[0]} in {one.split}, {other.query_ids[0]} in {other.split}",
        )
    positives[TEST] |= set(held_out.documents)
    for number, strict in enumerate(SPLITS):
        for loose in SPLITS[:number]:
            for document in sorted(positives[strict] & positives[loose]):
                check.found(SHARED_DOCUMENT, f"{document} is relevant in {strict} and in {loose}")
    return check


def _across(
    rows: Sequence[WrittenQuery], similarity: float
) -> Iterable[tuple[WrittenQuery, WrittenQuery]]:
    """Pairs of similar queries of different splits; at least one where there is any.

    Texts with the same words are compared through the first of them: where one of them is in
    another split than the first, these two are the pair.
    """
    for one, other in similar_pairs([row.text for row in rows], similarity).tolist():
        if rows[one].split != rows[other].split:
            yield rows[one], rows[other]
