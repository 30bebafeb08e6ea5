"""What only a GPU can show: the packed path and its attention kernel. `make gpu` runs it."""

import numpy as np
import pytest
import torch

from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.rerankers.cross_encoder import CrossEncoderScorer
from rerank_batch.retrieval.encoder import Encoder
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.scoring.engine import PairEngine
from rerank_batch.scoring.modes import Mode
from tests.conftest import sentences
from tests.scoring.models import SHAPES, write_model
from tests.scoring.test_engine import DOCUMENTS, QUERIES, predicted, scores

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

FP32, BF16 = Mode("torch", "fp32"), Mode("torch", "bf16")


@pytest.fixture(scope="module", params=SHAPES)
def model(request, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp(request.param), request.param)


def scorer(folder, mode):
    made = CrossEncoderScorer(folder, ScorerOptions(mode=mode))
    assert isinstance(made.runtime, PairEngine), "no fallback"
    return made


def test_fp32_logits_are_those_of_predict_on_the_cpu(model):
    found = scores(scorer(model, FP32))
    np.testing.assert_allclose(found, predicted(model), rtol=0, atol=1e-4)


def test_bf16_logits_keep_the_order_but_for_close_calls(model):
    ours = scorer(model, BF16)
    assert not ours.runtime.runtime.even, "texts lie one behind the other"
    found, exact = scores(ours), predicted(model)
    assert np.corrcoef(found, exact)[0, 1] > 0.99
    assert np.abs(found - exact).max() < 0.1 * np.ptp(exact)


def test_bf16_gives_the_same_again(model):
    ours = scorer(model, BF16)
    np.testing.assert_array_equal(scores(ours), scores(ours))


def test_vectors_are_those_of_the_cpu(tiny_bi_encoder):
    texts = [*sentences(20, seed=1), *DOCUMENTS, *QUERIES]
    found = Encoder(tiny_bi_encoder, EncoderOptions(mode=FP32)).encode_documents(texts)
    lossy = Encoder(tiny_bi_encoder, EncoderOptions(mode=BF16)).encode_documents(texts)
    assert ((found * lossy).sum(axis=1) > 0.99).all()


def test_the_measured_mode_is_one_there_is(model):
    options = ScorerOptions(precision="auto", allow=("bf16", "int8"))
    choice = CrossEncoderScorer.choose(model, options)
    assert set(choice.tokens_per_second) == {"torch fp32", "torch bf16"}
