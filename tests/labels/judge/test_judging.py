"""The judge against a pretend model: grades, second opinions, faults, the bill, hostile texts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.config import LabelJudgeConfig, LabelsConfig, PriceConfig
from rerank_batch.errors import InputError, ServiceError, SpendCapReached
from rerank_batch.labels.judge import Judge, JudgeUse, ToJudge, queries_to_judge, read_rubric
from rerank_batch.labels.judge import judging as module
from rerank_batch.labels.judge.pairs import wants_second_opinion
from rerank_batch.labels.judge.prompts import FILES, judge_request
from rerank_batch.services.usage import Usage
from rerank_batch.storage import open_root
from tests.labels.pretend_judge import PretendJudge, by_hash, pair_of
from tests.labels.small import corpus, run_of
from tests.rerankers.test_prompts import HOSTILE
from tests.services.server import Canned

PRICE = PriceConfig(request=1)


def queries(count: int, documents: int = 3) -> list[ToJudge]:
    found = []
    for n in range(count):
        doc_ids = tuple(f"d{n + i}" for i in range(documents))
        found.append(ToJudge(f"q{n}", (f"q{n}",), f"river stone {n}", doc_ids))
    return found


def texts(folder: Path, count: int = 40) -> Any:
    return corpus(folder / "texts", {f"d{n}": f"paper cloud {n}" for n in range(count)}).texts()


@pytest.fixture
def judge(serve, tmp_path):
    """Start a pretend judge; gives its service, and how to make a judge that asks it."""
    store = texts(tmp_path)

    def start(store=store, **how: Any) -> Any:
        model = PretendJudge(**how)
        service = serve("llm")
        service.routes = {model.path: model}

        def make(rubric: str | None = None, cap: float | None = None, **settings: Any) -> Judge:
            config = LabelJudgeConfig(**{"model": "llm:m", "double": 0.5, **settings})
            use = JudgeUse(open_root(str(tmp_path)), "judge-1", PRICE, cap)
            return Judge(config, read_rubric(rubric), store, use)

        return service, make

    return start


def expected(asked: list[ToJudge]) -> dict[str, dict[str, int]]:
    return {
        query.query_id: {
            doc: by_hash(query.text, f"paper cloud {doc[1:]}") for doc in query.doc_ids
        }
        for query in asked
    }


def drawn(asked: list[ToJudge], share: float = 0.5) -> list[tuple[str, str]]:
    return [
        (query.query_id, doc)
        for query in asked
        for doc in query.doc_ids
        if wants_second_opinion(0, query.query_id, doc, share)
    ]


def test_every_pair_gets_its_grade_and_some_a_second_one(judge):
    """By a prompt of its own: as a cached repeat the second would be worth nothing."""
    service, make = judge(second=lambda query, document: 3 - by_hash(query, document))
    pairs = queries(12)
    found = make().judge(pairs)
    assert found.grades == expected(pairs)
    twice = drawn(pairs)
    assert 0 < len(twice) < 36
    assert Counter(found.twice) == Counter(
        (grade, 3 - grade) for grade in (found.grades[q][d] for q, d in twice)
    )
    assert (found.pairs, found.prompts, found.known) == (36, 36 + len(twice), 0)
    assert not found.ungraded and not found.no_second and not found.cut
    opinions = Counter(pair_of(call.body)[0] for call in service.calls)
    assert opinions == {False: 36, True: len(twice)}
    assert found.used == service.billed and found.cost == len(service.calls)


@given(share=st.floats(0, 1), more=st.floats(0, 1), seed=st.integers(0, 99))
def test_who_is_judged_twice_depends_on_the_pair_and_a_larger_share_adds_to_it(share, more, seed):
    small, large = sorted((share, more))
    if wants_second_opinion(seed, "q", "d", small):
        assert wants_second_opinion(seed, "q", "d", large)
    assert not wants_second_opinion(seed, "q", "d", 0)
    assert wants_second_opinion(seed, "q", "d", 1)


def test_the_share_is_kept():
    many = [wants_second_opinion(7, f"q{n}", "d", 0.1) for n in range(5000)]
    assert sum(many) == pytest.approx(500, abs=75)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("prose", "no_grade"), ("an object with more", "no_grade"), ("digit 9", "out_of_range"),
     ("refusal", "no_text"), ("nothing", "no_text"), ("prose after", "truncated")],
)  # fmt: skip
def test_what_is_no_grade_is_counted_by_its_reason_and_never_guessed(
    fault, reason, judge, monkeypatch
):
    """Of a reply that was cut not even what looks like a grade is taken: it may go on as 2.5."""
    from tests.services.llm_server import OTHER_TEXTS

    monkeypatch.setitem(OTHER_TEXTS, "an object with more", lambda t: f'{{"grade": {t}, "a": 1}}')
    service, make = judge(fault=fault, on="river stone 2")
    pairs = queries(5)
    settings = {"max_tokens": 1} if fault == "prose after" else {}
    found = make(double=1.0, **settings).judge(pairs)
    assert found.grades == {q: g for q, g in expected(pairs).items() if q != "q2"}
    assert found.ungraded == {reason: 3}
    # Asked once more in other words; without a first grade nobody asks for a second.
    assert len(service.calls) == 2 * 12 + 2 * 3
    again = make(double=1.0, **settings).judge(pairs)
    assert (again.grades, again.ungraded) == (found.grades, found.ungraded)
    assert len(service.calls) == 2 * 12 + 2 * 3, "that it could not be read was paid for as well"


def test_a_second_opinion_that_cannot_be_read_leaves_the_first(judge):
    _, make = judge(fault="prose", on='"query": "river stone 1"}')
    pairs = queries(4)
    found = make(double=1.0).judge(pairs)
    assert found.grades == expected(pairs)
    assert found.no_second == {"no_grade": 3}
    assert len(found.twice) == 9


def test_what_the_service_declines_and_what_is_in_no_index_have_reasons_too(judge):
    service, make = judge()
    service.canned = lambda body: (
        Canned(400, b'{"error": {"message": "filter"}}') if "stone 1" in str(body) else None
    )
    pairs = [*queries(2), ToJudge("q9", ("q9",), "river", ("d9", "nowhere"))]
    found = make().judge(pairs)
    assert found.ungraded == {"declined": 3, "not_in_index": 1}
    assert found.grades["q9"].keys() == {"d9"} and "q1" not in found.grades


@pytest.mark.parametrize("cap", [0, 17])
def test_at_the_cap_it_stops_and_goes_on_without_paying_twice(cap, judge):
    service, make = judge()
    pairs = queries(8)
    total = 24 + len(drawn(pairs))
    assert cap < total
    for _ in range(2):
        with pytest.raises(SpendCapReached, match=rf"of {total} judgements.*the same make-labels"):
            make(cap=cap).judge(pairs)
        assert len(service.calls) == cap, "what was spent is known to the next attempt"
    found = make(cap=total).judge(pairs)
    assert found.grades == expected(pairs)
    asked = Counter(json.dumps(call.body, sort_keys=True) for call in service.calls)
    assert len(asked) == total and set(asked.values()) == {1}
    assert (found.known, found.prompts, found.cost) == (cap, total, total)


def test_whoever_dies_in_the_middle_pays_for_nothing_twice(judge):
    """The service is gone after every seventh reply, and the driver with it."""
    service, make = judge()
    pairs = queries(8)

    def dying(total, done):
        class Watch:
            def __enter__(self):
                stop = len(service.calls) + 7

                def canned(body):
                    return Canned(401) if len(service.calls) >= stop else None

                service.canned = canned

            def __exit__(self, *_):
                service.canned = lambda body: None

        return Watch()

    attempts = 0
    while True:
        attempts += 1
        try:
            found = make(service={"concurrency": 2}).judge(pairs, dying)
            break
        except ServiceError:
            continue
    assert attempts > 3
    assert found.grades == expected(pairs)
    paid = Counter(json.dumps(c.body, sort_keys=True) for c in service.calls if c.status == 200)
    assert len(paid) == found.prompts and set(paid.values()) == {1}


def test_what_lies_ahead_is_told_before_anything_is_asked(judge):
    service, make = judge()
    pairs = queries(8)
    estimate = make().estimate(pairs)
    assert service.calls == []
    assert (estimate.distinct, estimate.known) == (24 + len(drawn(pairs)), 0)
    found = make().judge(pairs[:5])
    assert make().estimate(pairs).known == found.prompts
    make().judge(pairs)
    assert len(service.calls) == estimate.distinct
    assert service.billed.tokens <= estimate.most.tokens
    assert service.billed.output_tokens <= estimate.most.output_tokens
    assert make().estimate(pairs).most == Usage()


def test_portions_change_nothing(judge, monkeypatch):
    _, make = judge()
    pairs = queries(8)
    whole = make().judge(pairs)
    monkeypatch.setattr(module, "_PORTION", 4)
    shown = []

    class Watch:
        def __init__(self, total, done):
            self.total, self.done = total, done

        def __enter__(self):
            pass

        def __exit__(self, *_):
            shown.append((self.done(), self.total))

    parts = make().judge(pairs, Watch)
    assert parts == whole.__class__(**{**vars(whole), "known": whole.prompts})
    assert shown == [(whole.prompts, whole.prompts)]


def test_ten_replies_of_no_use_at_the_start_end_it_and_later_ones_do_not(judge, monkeypatch):
    service, make = judge(fault="prose", on="river stone 1")
    monkeypatch.setattr(module, "_PORTION", 3)
    pairs = queries(12)
    found = make(double=0.0, service={"concurrency": 1}).judge(pairs)
    assert found.ungraded == {"no_grade": 3 * 3}, "of 1, 10 and 11"
    service, make = judge(fault="prose")
    with pytest.raises(ServiceError, match="none of the first 10 prompts got a reply"):
        make(model="llm:other", service={"concurrency": 1}).judge(pairs)
    assert len(service.calls) == 20


def test_long_texts_are_cut_and_counted(judge):
    service, make = judge()
    found = make(max_chars=11).judge(queries(2))
    sent = {pair_of(call.body)[1:] for call in service.calls}
    assert {len(text) for pair in sent for text in pair} == {11}
    assert found.cut == 6


# --- the rubric ---------------------------------------------------------------------------------


def test_a_rubric_of_ones_own_is_what_both_prompts_say_and_another_one_is_paid_for(judge, tmp_path):
    service, make = judge()
    rubric = tmp_path / "mine.md"
    rubric.write_text("0 to 2: no $query {here}\n3: yes\n1: hm")
    make(str(rubric)).judge(queries(3))
    systems = {call.body["messages"][0]["content"] for call in service.calls}
    assert len(systems) == 2 and all(rubric.read_text() in system for system in systems)
    paid = len(service.calls)
    make(str(rubric)).judge(queries(3))
    assert len(service.calls) == paid
    make().judge(queries(3))
    assert len(service.calls) == 2 * paid
    assert read_rubric(None).text in service.calls[-1].body["messages"][0]["content"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [(b"0 no, 1 maybe, 3 yes", "does not say what 2 means"), (b"", "what 0, 1, 2, 3 means"),
     (b"10 20 30 and 1", "what 0, 2, 3 means"), (b"\xff0123", "not UTF-8"),
     (b"0 1 2 3" * 5000, "35,000 characters")],
)  # fmt: skip
def test_a_rubric_that_is_none_is_refused(raw, words, tmp_path):
    file = tmp_path / "rubric.txt"
    file.write_bytes(raw)
    with pytest.raises(InputError, match=words):
        read_rubric(str(file))
    with pytest.raises(InputError, match=r"labels\.judge\.rubric.*nowhere"):
        read_rubric(str(tmp_path / "nowhere.txt"))


# --- what is judged -----------------------------------------------------------------------------


def test_it_is_the_top_of_the_final_ranking(tmp_path):
    """Retrieval likes a, b, c, d in this order; the reranker d, c, a, b."""
    hits = [("a", 9.0, 2.0), ("b", 8.0, 1.0), ("c", 7.0, 3.0), ("d", 6.0, 4.0)]
    source = run_of(tmp_path, {"q1": hits, "q2": hits[:1], "q3": []})
    found = {query.query_id: query.doc_ids for query in queries_to_judge(source, 3)}
    assert found == {"q1": ("d", "c", "a"), "q2": ("a",), "q3": ()}


def test_a_judge_is_asked_for_in_the_configuration():
    with pytest.raises(ValueError, match="source: llm needs judge"):
        LabelsConfig(source="llm")
    with pytest.raises(ValueError, match=r"positives\.grade \(4\) is more than the judge gives"):
        LabelsConfig.model_validate(
            {"source": "llm", "judge": {"model": "llm:m"}, "positives": {"grade": 4}}
        )


# --- documents that want more than to be read ---------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_judged_as_any_other(text, judge, tmp_path):
    document = f"cloud {text}"
    store = corpus(tmp_path / "hostile", {"d1": document, "d2": "stone"}).texts()
    _, make = judge(store=store)
    found = make(double=1.0).judge([ToJudge("q", ("q",), f"river {text}", ("d1", "d2"))])
    query = f"river {text}"
    grades = {"d1": by_hash(query, document), "d2": by_hash(query, "stone")}
    assert found.grades == {"q": grades}
    assert sorted(found.twice) == sorted((grade, grade) for grade in grades.values())


strange = st.text(max_size=30) | st.sampled_from(HOSTILE)


@settings(deadline=None)
@given(query=strange, document=strange, opinion=st.sampled_from(sorted(FILES)))
def test_no_text_leaves_its_string(query, document, opinion):
    rubric = read_rubric(None)
    for found, plain in zip(
        (prompt := judge_request(opinion, rubric, query, document)).first + prompt.again,
        (empty := judge_request(opinion, rubric, "", "")).first + empty.again,
        strict=True,
    ):
        if found["role"] == "system":
            assert found == plain
            continue
        line, _, rest = found["content"].partition("\n")
        assert rest == plain["content"].partition("\n")[2]
        assert len(line.splitlines()) == 1 and "<" not in line
        assert json.loads(line) == {"query": query, "document": document}
