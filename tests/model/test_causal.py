"""The causal half of the model: what a token may see, parity with `BertLMHeadModel`, and sinusoidal positions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import BertLMHeadModel

from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.errors import UserError
from bothways.model.attention import attend
from bothways.model.attention_mask import CAUSAL
from bothways.model.embeddings import sinusoids
from bothways.model.families import head_builder
from bothways.model.kernels.eager import attend_eager
from bothways.model.pretraining_heads import CausalLMHead
from tests.helpers import batch_of_lengths, padded, random_batch, tiny_config, tiny_tokenizer, unpadded

LENGTHS = [17, 9, 9, 30, 1, 2]


@pytest.mark.parametrize("training", [False, True])
def test_what_a_token_sees_ends_with_itself(training: bool) -> None:
    """Changing token t leaves every output before it bit-identical, with and without dropout, in both kernels."""
    model = new_model(tiny_config(is_decoder=True), head_builder("causal-LM"), seed=0).train(training)
    batch = random_batch([24], model.config.vocab_size)

    def scores() -> torch.Tensor:
        torch.manual_seed(3)
        return model(batch).logits.detach().clone()

    before = scores()
    for changed in (0, 1, 11, 23):
        kept = int(batch.input_ids[changed])
        batch.input_ids[changed] = (kept + 1) % model.config.vocab_size
        after = scores()
        batch.input_ids[changed] = kept
        assert torch.equal(before[:changed], after[:changed])
        assert not torch.equal(before[changed:], after[changed:])


def test_the_real_model_read_from_left_to_right_sees_nothing_ahead_and_no_other_document(minilm: Path) -> None:
    encoder = load_checkpoint(minilm).model.encoder.eval()
    for layer in encoder.layers:
        layer.attention.mask = CAUSAL
    batch = random_batch([20, 12, 12], encoder.config.vocab_size)
    with torch.inference_mode():
        before = encoder(batch)
        batch.input_ids[25] += 1  # token 5 of the second document
        after = encoder(batch)
    assert torch.equal(before[:25], after[:25])
    assert torch.equal(before[32:], after[32:])
    assert not torch.equal(before[25:32], after[25:32])


def test_packed_documents_do_not_see_one_another() -> None:
    model = new_model(tiny_config(is_decoder=True), head_builder("causal-LM"), seed=0).eval()
    batch = random_batch(LENGTHS, model.config.vocab_size)
    scores = model(batch).logits
    other = random_batch(LENGTHS, model.config.vocab_size, seed=1)
    first = slice(0, LENGTHS[0])
    other.input_ids[first], other.token_type_ids[first] = batch.input_ids[first], batch.token_type_ids[first]
    assert torch.equal(scores[first], model(other).logits[first])


@pytest.mark.parametrize("dropout", [0.0, 1e-9])  # with dropout another kernel works
def test_kernels_agree_with_the_reference_whose_upper_triangle_is_empty(dropout: float) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(sum(LENGTHS), 2, 8, generator=generator) for _ in range(3))
    lengths = torch.tensor(LENGTHS)
    expected, weights = attend_eager(q, k, v, lengths, CAUSAL)
    for sequence in weights:
        heads, length, _ = sequence.shape
        torch.testing.assert_close(sequence.sum(-1), torch.ones(heads, length))
        assert (sequence.triu(1) == 0).all()
        assert (sequence.tril() > 0).sum() == heads * length * (length + 1) / 2
    found = attend(q, k, v, batch_of_lengths(lengths), CAUSAL, dropout=dropout)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_transformers_opens_what_is_saved_with_the_same_logits_and_back(tmp_path: Path, positions: str) -> None:
    config = tiny_config(is_decoder=True, positions=positions)
    model = new_model(config, head_builder("causal-LM"), seed=0).eval()
    save_checkpoint(Checkpoint(model, tiny_tokenizer()), tmp_path / "ours")
    theirs = BertLMHeadModel.from_pretrained(tmp_path / "ours").eval()
    assert theirs.config.is_decoder
    assert theirs.generation_config.eos_token_id == tiny_tokenizer().sep_id
    batch = random_batch(LENGTHS, config.vocab_size)
    expected = unpadded(theirs(**padded(batch)).logits, batch)
    torch.testing.assert_close(model(batch).logits, expected, atol=1e-5, rtol=1e-5)

    theirs.save_pretrained(tmp_path / "theirs")
    tiny_tokenizer().save(tmp_path / "theirs")
    again = load_checkpoint(tmp_path / "theirs")
    assert isinstance(again.model.head, CausalLMHead)
    assert again.config.positions == positions
    torch.testing.assert_close(again.model(batch).logits, expected, atol=1e-5, rtol=1e-5)


def test_the_sinusoidal_table_is_the_papers_and_is_never_trained() -> None:
    table = sinusoids(50, 16)
    for position, column in ((0, 0), (0, 1), (7, 4), (7, 5), (49, 14), (49, 15)):
        angle = position / 10000 ** (2 * (column // 2) / 16)
        assert table[position, column] == pytest.approx(math.cos(angle) if column % 2 else math.sin(angle), abs=1e-6)
    model = new_model(tiny_config(positions="sinusoidal"), head_builder("causal-LM"), seed=0)
    position = model.encoder.embeddings.position.weight
    torch.testing.assert_close(position, sinusoids(*position.shape) * 0.02)
    assert not position.requires_grad
    assert model.encoder.embeddings.token.weight.requires_grad


def test_other_positions_are_an_error_that_names_what_is_accepted() -> None:
    with pytest.raises(UserError, match=r"positions 'rotary'.*learned, sinusoidal"):
        tiny_config(positions="rotary")
