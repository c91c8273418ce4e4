"""Every head, every family and every kind of answer on a GPU against the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bothways as bw
from bothways import hardware
from bothways.batch import PackedBatch, pack
from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.data.encoded import Encoded
from bothways.errors import UserError
from bothways.inference.engine import run_batches
from bothways.model.families import FAMILIES, find_family, head_builder
from bothways.model.heads import HeadKind, Model
from bothways.model.lm_head import LazyLogits
from bothways.model.pretraining_heads import PretrainingScores
from bothways.model.task_heads import EmbeddingHead
from tests.helpers import tiny_tokenizer

LENGTHS = np.array([90, 3, 37, 37, 128, 1])
CASES = [(family, kind) for family in FAMILIES for kind in FAMILIES[family].heads]


def model_of(family: str, kind: HeadKind) -> Model:
    chosen: dict[str, Any] = {"is_decoder": True} if kind == "causal-LM" and family != "gpt2" else {}
    config = find_family(family).config.from_size("tiny", vocab_size=300, **chosen)
    return new_model(config, head_builder(kind, 3), seed=1).eval()


def vectors_model() -> Model:
    config = find_family("bert").config.from_size("tiny", vocab_size=300)
    return new_model(config, lambda encoder: EmbeddingHead("mean"), seed=1).eval()


def batch() -> PackedBatch:
    rng = np.random.default_rng(0)
    tokens = int(LENGTHS.sum())
    places = np.sort(rng.choice(tokens, 20, replace=False))
    targets = {"mlm_index": places, "word_index": places}
    return pack(rng.integers(5, 300, tokens), np.zeros(tokens, dtype=np.int64), LENGTHS, targets)


def sequence_of(ids: np.ndarray) -> Encoded:
    nothing = np.zeros((len(ids), 2), dtype=np.int64)
    return Encoded(ids, nothing[:, 0], nothing[:, 0], nothing)


def tensors(scores: Any) -> Iterator[Tensor]:
    """All numbers of a head's scores."""
    if isinstance(scores, PretrainingScores):
        yield from tensors(scores.mlm)
        yield from () if scores.nsp is None else (scores.nsp,)
    else:
        yield scores.logits if isinstance(scores, LazyLogits) else scores


@pytest.mark.parametrize(("family", "kind"), CASES)
@torch.inference_mode()
def test_every_head_says_what_it_says_on_the_cpu(family: str, kind: HeadKind, device: torch.device) -> None:
    model = model_of(family, kind)
    exact = [found.clone() for found in tensors(model(batch()))]
    on_gpu = model.to(device)
    for found, expected in zip(tensors(on_gpu(batch().to(device))), exact, strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4)
    half = on_gpu.bfloat16()
    for found, expected in zip(tensors(half(batch().to(device))), exact, strict=True):
        assert found.device == device
        assert float((found.float().cpu() - expected).norm()) < 0.05 * float(expected.norm()) + 0.01


def test_batches_at_the_same_time_come_back_in_order(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vectors_model().to(device)
    rng = np.random.default_rng(1)
    encoded = [sequence_of(rng.integers(5, 300, length)) for length in rng.integers(1, 128, 300).tolist()]

    def vectors() -> np.ndarray:
        return np.array(run_batches(model, lambda found, *_: list(found.cpu().numpy()), encoded, device))

    whole = vectors()
    monkeypatch.setitem(hardware.INFERENCE_BATCH_TOKENS, device.type, 600)
    np.testing.assert_allclose(vectors(), whole, atol=1e-5)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A masked language model, and a causal one beside it."""
    tokenizer = tiny_tokenizer()
    for name, kind, chosen in (("masked", "pretraining", {}), ("causal", "causal-LM", {"is_decoder": True})):
        config = find_family("bert").config.from_size("tiny", vocab_size=tokenizer.vocab_size, **chosen)
        model = new_model(config, head_builder(kind), seed=1)  # type: ignore[arg-type]
        save_checkpoint(Checkpoint(model, tokenizer), tmp_path / name)
    return tmp_path


def test_what_users_ask(directory: Path, device: torch.device) -> None:
    here, there = (bw.load(directory / "masked", name, "float32") for name in ("cpu", str(device)))
    texts = ["the red dog runs .", "a cat sleeps in the old house . not the bird", "big"]
    np.testing.assert_allclose(there.embed(texts), here.embed(texts), atol=1e-4)
    (ours,), (theirs,) = (model.fill("the [MASK] dog") for model in (there, here))
    assert [fill.token for fill in ours] == [fill.token for fill in theirs]
    for name in ("float32", "bfloat16"):
        half = bw.load(directory / "masked", str(device), name)
        assert (half.embed(texts) * here.embed(texts)).sum(1).min() > 0.99
    assert there.score("the dog runs .").log_probability == pytest.approx(
        here.score("the dog runs .").log_probability, abs=1e-3
    )


def test_texts_are_generated_as_on_the_cpu(directory: Path, device: torch.device) -> None:
    here, there = (bw.load(directory / "causal", name, "float32") for name in ("cpu", str(device)))
    prompts = ["the red dog", "a", "not in the old house"]
    for options in ({"greedy": True}, {"top_k": 5, "repetition_penalty": 1.2, "samples": 2}):
        ours, theirs = (model.generate(prompts, max_tokens=8, **options) for model in (there, here))
        assert str(ours) == str(theirs)
    assert [str(word) for word in there.suggest("the")] != []


def test_a_page_explains_what_the_gpu_computed(directory: Path, device: torch.device, tmp_path: Path) -> None:
    from bothways.cli import main

    words = ["explain", str(directory / "masked"), "the [MASK] dog runs", "--device", str(device)]
    assert main([*words, "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_out_of_memory_is_a_line(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("of a GPU's memory")
    model = vectors_model().to(device)
    encoded = [sequence_of(np.full(512, 7))] * 512
    torch.cuda.empty_cache()
    _, whole = torch.cuda.mem_get_info(device)
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + (4 << 20)) / whole, device)
    try:
        with pytest.raises(UserError, match=r"out of memory on cuda:0 with a batch of [\d,]+ tokens; device='cpu'"):
            run_batches(model, lambda found, *_: list(found.cpu()), encoded, device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
