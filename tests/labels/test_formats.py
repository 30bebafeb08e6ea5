"""Every format by hand, and every one through the loader of the library that is to read it.

FlagEmbedding and Tevatron need not be there: their shapes are checked against what their own
code asks of a row, which is cited.
"""

import json
import math

import pytest

from rerank_batch.labels.formats import FORMATS, FormattedQuery
from tests.conftest import build_tokenizer, sentences
from tests.labels.small import corpus, labels_config, mined, run_of

DOCUMENTS = 40
TEXTS = {f"d{n:02d}": text for n, text in enumerate(sentences(DOCUMENTS, seed=6, words=12))}


def document(doc_id, role, label=None, score=None):
    return {
        "doc_id": doc_id,
        "document": f"text of {doc_id}",
        "label": label,
        "role": role,
        "origin": "judged",
        "rank": None,
        "teacher_score": score,
    }


QUERY = FormattedQuery(
    "q1",
    "the query",
    [
        document("p1", "positive", 2.0, 3.5),
        document("p2", "positive", 1.0),
        document("n1", "negative", 0.0, -1.5),
        document("n2", "negative", None, 0.5),
        document("n3", "negative"),
    ],
)


def rows(name, query=QUERY, negatives=2):
    return list(FORMATS[name].rows(query, negatives))


def passages(name, key):
    return [[row[each] for each in key] for row in rows(name)]


def test_pairs_have_every_document_and_scores_those_the_teacher_read():
    labels = [(row["passage"], row["label"]) for row in rows("pairs")]
    assert labels == [
        ("text of p1", 1.0),
        ("text of p2", 1.0),
        ("text of n1", 0.0),
        ("text of n2", 0.0),
        ("text of n3", 0.0),
    ]
    scores = [(row["passage"], row["score"]) for row in rows("scores")]
    assert scores == [("text of p1", 3.5), ("text of n1", -1.5), ("text of n2", 0.5)]


def test_triplets_and_tuples_take_each_positive_with_its_negatives():
    keys = ("positive", "negative")
    found = [(good[-2:], bad[-2:]) for good, bad in passages("triplets", keys)]
    assert found == [(p, n) for p in ("p1", "p2") for n in ("n1", "n2", "n3")]
    found = passages("n-tuples", ("positive", "negative_1", "negative_2"))
    assert [[text[-2:] for text in row] for row in found] == [
        ["p1", "n1", "n2"],  # n3 is left over
        ["p2", "n1", "n2"],
    ]
    assert len(rows("n-tuples", negatives=1)) == 6
    assert rows("n-tuples", negatives=4) == []


def test_lists_have_grades_or_scores():
    (grades,) = rows("listwise")
    assert grades["labels"] == [2.0, 1.0, 0.0, 0.0, 0.0]
    (scores,) = rows("listwise-scores")
    assert scores["labels"] == [3.5, -1.5, 0.5]
    assert [text[-2:] for text in scores["docs"]] == ["p1", "n1", "n2"]


def test_margins_are_differences_of_raw_scores():
    found = [
        (row["positive"][-2:], row["negative"][-2:], row["score"]) for row in rows("margin-mse")
    ]
    assert found == [("p1", "n1", 5.0), ("p1", "n2", 3.0)]
    (row,) = rows("kl")
    assert row["scores"] == [3.5, -1.5, 0.5]
    assert [row[name][-2:] for name in ("positive", "negative_1", "negative_2")] == [
        "p1",
        "n1",
        "n2",
    ]


def test_flagembedding_rows_are_what_its_dataset_asks_for():
    """`AbsRerankerTrainDataset.__getitem__` of FlagEmbedding 1.4.2
    (https://github.com/FlagOpen/FlagEmbedding/blob/master/FlagEmbedding/abc/finetune/reranker/AbsDataset.py):
    lists ``pos`` and ``neg``, neither empty, since it divides by the length of ``neg``; to distil,
    lists of numbers as long as these beside them."""
    (plain,) = rows("flagembedding")
    assert list(plain) == ["query", "pos", "neg"]
    assert [len(plain["pos"]), len(plain["neg"])] == [2, 3]
    (scored,) = rows("flagembedding-scores")
    assert scored["pos_scores"] == [3.5]
    assert scored["neg_scores"] == [-1.5, 0.5]
    assert [len(scored["pos"]), len(scored["neg"])] == [1, 2]
    alone = FormattedQuery("q1", "the query", QUERY.positives)
    assert rows("flagembedding", alone) == rows("tevatron", alone) == []
    group = 4
    assert math.ceil((group - 1) / len(plain["neg"])) == 1


def test_tevatron_rows_are_what_its_preprocessor_asks_for():
    """``positive_passages`` and ``negative_passages`` with docid, title and text
    (https://github.com/texttron/tevatron#training-data); its preprocessor reads ``title`` of every
    passage."""
    (row,) = rows("tevatron")
    assert list(row) == ["query_id", "query", "positive_passages", "negative_passages"]
    assert [p["title"] + " " + p["text"] for p in row["positive_passages"]] == [
        " text of p1",
        " text of p2",
    ]
    assert [p["docid"] for p in row["negative_passages"]] == ["n1", "n2", "n3"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    names = [f"q{n}" for n in range(6)]
    source = run_of(
        folder / "run",
        {
            name: [
                (f"d{(5 * n + rank) % DOCUMENTS:02d}", 1 - rank / 50, 1.0 - rank)
                for rank in range(8)
            ]
            for n, name in enumerate(names)
        },
    )
    qrels = {name: {f"d{5 * n:02d}": 2, f"d{5 * n + 1:02d}": 1} for n, name in enumerate(names)}
    config = labels_config(filters={"share": None, "near_duplicate": None})
    found = mined(corpus(folder / "texts", TEXTS), source, qrels, config)
    return [FormattedQuery(row["query_id"], row["query"], row["documents"]) for row in found]


LOSSES = {
    "pairs": "BinaryCrossEntropyLoss",
    "scores": "MSELoss",
    "triplets": "MultipleNegativesRankingLoss",
    "n-tuples": "MultipleNegativesRankingLoss",
    "listwise": "LambdaLoss",
    "listwise-scores": "ListNetLoss",
    "margin-mse": "MarginMSELoss",
    "kl": "MarginMSELoss",
}


SHAPES = ("pairs", "n-tuples", "listwise", "margin-mse")
"""A format of each kind of row; the others are slow tests only because there are many."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SHAPES else pytest.mark.slow) for name in LOSSES],
)
def test_a_cross_encoder_trains_on_it(name, labelled, tiny_cross_encoder, tmp_path):
    """From the file, through the trainer's own collator and loss: the weights move."""
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("accelerate")
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )

    file = str(lines(name, labelled, tmp_path))
    dataset = datasets.Dataset.from_json(file, cache_dir=str(tmp_path / "cache"))
    model = CrossEncoder(str(tiny_cross_encoder), num_labels=1, device="cpu")
    before = model.model.classifier.weight.detach().clone()
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        max_steps=1,
        learning_rate=1e-2,
        warmup_steps=0,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    loss = getattr(losses, LOSSES[name])(model)
    trainer = CrossEncoderTrainer(model, arguments, train_dataset=dataset, loss=loss)
    assert math.isfinite(trainer.train().training_loss)
    assert not before.equal(model.model.classifier.weight)


def test_a_bi_encoder_distils_from_it(labelled, tiny_bi_encoder):
    """`DistillKLDivLoss` is a loss of bi-encoders: collated as their trainer does."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.sentence_transformer.data_collator import (
        SentenceTransformerDataCollator,
    )

    model = SentenceTransformer(str(tiny_bi_encoder), device="cpu")
    batch = SentenceTransformerDataCollator(model.preprocess)(shaped("kl", labelled))
    names = ("query", "positive", "negative_1", "negative_2")
    features = [
        {
            key.removeprefix(f"{name}_"): value
            for key, value in batch.items()
            if key.startswith(f"{name}_")
        }
        for name in names
    ]
    loss = losses.DistillKLDivLoss(model)(features, batch["label"])
    assert math.isfinite(loss.item())
    assert loss.item() > 0


@pytest.mark.parametrize("name", ["flagembedding", "flagembedding-scores"])
def test_flagembedding_loads_it(name, labelled, tmp_path):
    """Where it is there: `pip install --no-deps FlagEmbedding`, whose own needs do not fit here."""
    datasets = pytest.importorskip("FlagEmbedding.abc.finetune.reranker.AbsDataset")
    from FlagEmbedding.abc.finetune.reranker.AbsArguments import AbsRerankerDataArguments

    arguments = AbsRerankerDataArguments(
        train_data=[str(lines(name, labelled, tmp_path))],
        knowledge_distillation=name.endswith("scores"),
        train_group_size=4,
        query_max_len=16,
        passage_max_len=32,
        cache_path=str(tmp_path / "cache"),
    )
    tokenizer = build_tokenizer()
    dataset = datasets.AbsRerankerTrainDataset(arguments, tokenizer)
    assert len(dataset) == len(labelled)
    collator = datasets.AbsRerankerCollator(tokenizer, query_max_len=16, passage_max_len=32)
    batch = collator([dataset[number] for number in range(4)])
    assert len(batch["pair"]["input_ids"]) == 16
    scores = batch["teacher_scores"]
    assert scores is None if name == "flagembedding" else len(scores) == 16


def test_tevatron_loads_it(labelled, tmp_path):
    """Where it is there: `pip install --no-deps tevatron`."""
    preprocessor = pytest.importorskip("tevatron.datasets.preprocessor")
    rows = map(json.loads, lines("tevatron", labelled, tmp_path).read_text().splitlines())
    cut = preprocessor.TrainPreProcessor(build_tokenizer(), 16, 32)
    for query, row in zip(labelled, rows, strict=True):
        tokens = cut(row)
        assert len(tokens["positives"]) == len(query.positives)
        assert len(tokens["negatives"]) == len(query.negatives)


def shaped(name, labelled):
    return [row for query in labelled for row in FORMATS[name].rows(query, 2)]


def lines(name, labelled, tmp_path):
    file = tmp_path / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in shaped(name, labelled)))
    return file
