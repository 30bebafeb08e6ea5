"""A trained model as what it changed: small, equal to the last bit wherever it is made, checked."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file, save_file

from rerank_batch.errors import ModelError, StorageError
from rerank_batch.models import delta as deltas
from rerank_batch.models import location as models
from rerank_batch.models.delta import DeltaFormat, write_delta
from rerank_batch.models.fingerprint import model_fingerprint
from rerank_batch.models.location import ModelName, model_folder
from rerank_batch.rerankers import load_scorer
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.scoring.modes import Mode
from tests.conftest import sentences


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rerank_batch" / "models"


def trained_from(base: Path, out: Path, rank: int, seed: int = 0) -> Path:
    """The base with a change of that rank in every matrix, and of anything in every vector."""
    rng = np.random.default_rng(seed)
    shutil.copytree(base, out)
    tensors = {}
    for name, tensor in load_file(base / "model.safetensors").items():
        if tensor.ndim == 2:
            change = rng.normal(0, 0.1, (len(tensor), rank)) @ rng.normal(
                0, 0.05, (rank, tensor.shape[1])
            )
        else:
            change = rng.normal(0, 0.1, tensor.shape)
        tensors[name] = (tensor + change).astype(np.float32)
    (out / "model.safetensors").unlink()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def scores(location: Path) -> Any:
    options = ScorerOptions(mode=Mode("torch", "fp32"))
    scorer = load_scorer(ModelName("cross-encoder", str(location)), options)
    return np.concatenate(scorer.score(sentences(5, seed=1), [sentences(6, seed=2)] * 5).values)


def test_a_change_of_that_rank_is_kept_to_a_thousandth(
    tiny_cross_encoder: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_cross_encoder, base)
    trained = trained_from(base, tmp_path / "trained", rank=4)
    (trained / "README.md").write_text("about it")
    written = write_delta(trained, base, str(base), DeltaFormat(4), tmp_path / "delta")
    assert written.worst < 1e-3
    assert (tmp_path / "delta" / "README.md").read_text() == "about it"
    ours = (tmp_path / "delta" / "delta.safetensors").stat().st_size
    assert ours < 0.5 * (trained / "model.safetensors").stat().st_size
    theirs = scores(trained)
    assert np.abs(theirs - scores(base)).max() > 0.1
    assert np.abs(theirs - scores(tmp_path / "delta")).max() < 1e-3
    worse = write_delta(trained, base, str(base), DeltaFormat(2), tmp_path / "less")
    assert worse.worst > 0.1


def test_a_change_of_every_direction_is_kept_in_few_bits(
    tiny_cross_encoder: Path, tmp_path: Path
) -> None:
    """As full fine-tuning makes it: of low rank nothing would be left of it."""
    trained = trained_from(tiny_cross_encoder, tmp_path / "trained", rank=32)
    lost, sizes, apart = {}, {}, {}
    theirs = scores(trained)
    for kept in (DeltaFormat(bits=4), DeltaFormat(bits=8), DeltaFormat(4)):
        out = tmp_path / str(kept)
        written = write_delta(trained, tiny_cross_encoder, str(tiny_cross_encoder), kept, out)
        lost[str(kept)] = written.worst
        sizes[str(kept)] = sum(
            array.nbytes for array in load_file(out / "delta.safetensors").values()
        )
        apart[str(kept)] = float(np.abs(theirs - scores(out)).max())
    assert lost["8 bits"] < 0.01 < lost["4 bits"] < 0.15 < lost["rank 4"]
    assert sizes["4 bits"] < 0.25 * (trained / "model.safetensors").stat().st_size
    assert apart["8 bits"] < apart["4 bits"] < apart["rank 4"]


@given(
    change=arrays(
        np.float64, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.floats(-1, 1)
    ),
    bits=st.sampled_from([4, 8]),
)
@settings(max_examples=60, deadline=None)
def test_steps_come_back_as_they_were_packed(change: Any, bits: Any) -> None:
    """Widths of any parity, rows of zeros: nothing is further off than half a step, or cut."""
    steps, step = deltas._steps(change, bits)
    back = deltas._change("steps", {"x.steps": steps, "x.step": step}, "x", change.shape)
    most = 2 ** (bits - 1) - 1
    exact = step.astype(np.float64)[:, None]
    cut = np.abs(change) > most * exact
    assert (np.abs(change - back)[~cut] <= np.broadcast_to(0.5 * exact, change.shape)[~cut]).all()
    assert np.array_equal(back[cut], (np.sign(change) * most * exact)[cut])


@given(st.integers(0, 2**32), st.integers(1, 48), st.sampled_from([1e-6, 1e-2, 0.5]))
@settings(max_examples=30, deadline=None)
def test_the_product_is_exact_in_whatever_order_it_is_summed(
    seed: int, rank: int, scale: float
) -> None:
    """So every machine makes the same bytes, and a fingerprint means the same everywhere."""
    rng = np.random.default_rng(seed)
    up, down = deltas._factors(rng.normal(0, scale, (40, 48)), rank)
    order = rng.permutation(up.shape[1])
    one_by_one = np.zeros((40, 48))
    for n in order:
        one_by_one += np.outer(up[:, n].astype(np.float64), down[n].astype(np.float64))
    assert np.array_equal(deltas._product(up, down), one_by_one)


def test_a_change_that_would_not_be_exact_is_refused() -> None:
    with pytest.raises(ModelError, match="too large"):
        deltas._factors(np.full((30, 30), 100.0), 2)


def test_an_encoder_is_the_base_of_a_cross_encoder(
    tiny_bi_encoder: Path, tmp_path: Path, cache: Path
) -> None:
    """Names differ by the first word, the head is new: what did not change is not shipped."""
    from rerank_batch.training.config import FinetuneConfig
    from rerank_batch.training.model import write_start

    start = tmp_path / "start"
    config = FinetuneConfig(model="cross-encoder:x", max_length=32)
    write_start(tiny_bi_encoder, config, start)
    write_delta(start, tiny_bi_encoder, str(tiny_bi_encoder), DeltaFormat(), tmp_path / "delta")
    kinds = json.loads((tmp_path / "delta" / "delta.json").read_text())["tensors"]
    changed = {name for name, kind in kinds.items() if kind["is"] != "same"}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert np.array_equal(scores(tmp_path / "delta"), scores(start))

    made = model_folder(str(tmp_path / "delta"))
    assert made.parent == cache
    assert model_fingerprint(made) == model_fingerprint(start)
    before = (made / "model.safetensors").stat().st_mtime_ns
    assert model_folder(str(tmp_path / "delta")) == made
    assert (made / "model.safetensors").stat().st_mtime_ns == before


def test_another_base_and_damage_are_refused(tiny_cross_encoder: Path, tmp_path: Path) -> None:
    base, delta = tmp_path / "base", tmp_path / "delta"
    shutil.copytree(tiny_cross_encoder, base)
    trained = trained_from(base, tmp_path / "trained", rank=2)
    write_delta(trained, base, str(base), DeltaFormat(2), delta)
    with pytest.raises(StorageError, match="exists already"):
        write_delta(trained, base, str(base), DeltaFormat(2), delta)

    other = trained_from(base, tmp_path / "other", rank=1, seed=1)
    (base / "model.safetensors").rename(tmp_path / "right")
    shutil.copyfile(other / "model.safetensors", base / "model.safetensors")
    with pytest.raises(ModelError, match="belongs to other weights"):
        model_folder(str(delta))
    shutil.copyfile(tmp_path / "right", base / "model.safetensors")

    tensors = load_file(delta / "delta.safetensors")
    tensors["classifier.bias"] = tensors["classifier.bias"] + 1
    save_file(tensors, delta / "delta.safetensors")
    with pytest.raises(ModelError, match="is damaged"):
        model_folder(str(delta))
    (delta / "delta.json").write_text('{"format": 2}')
    with pytest.raises(ModelError, match="does not know"):
        model_folder(str(delta))


def test_the_sample_reranker_is_a_delta_of_this_package(
    tiny_cross_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "SAMPLE_FOLDER", tmp_path / "reranker")
    with pytest.raises(ModelError, match=r"finetune configs/finetune-sample\.yaml"):
        model_folder("sample")
    trained = trained_from(tiny_cross_encoder, tmp_path / "trained", rank=1)
    write_delta(
        trained, tiny_cross_encoder, str(tiny_cross_encoder), DeltaFormat(1), tmp_path / "reranker"
    )
    made = load_file(model_folder("sample") / "model.safetensors")
    for name, tensor in load_file(trained / "model.safetensors").items():
        assert np.abs(made[name] - tensor).max() < 1e-3
