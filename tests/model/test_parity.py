"""The model against `transformers`, the oracle: hidden states, losses, gradients, on ragged batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertForPreTraining, BertModel

import bothways as bw
from bothways.batch import PackedBatch, pack_sequences
from bothways.checkpoint.hugging_face import name_table, new_model
from bothways.model.config import EncoderConfig
from bothways.model.families import head_builder
from bothways.model.heads import Model
from bothways.tasks.pretraining import BertObjective
from tests.helpers import hugging_face_config, padded, random_batch

RAGGED = (512, 1, 37, 128, 128, 2, 300, 64)


def pretraining_pair(config: EncoderConfig, dtype: torch.dtype) -> tuple[Model, BertForPreTraining]:
    torch.manual_seed(1)
    theirs = BertForPreTraining(hugging_face_config(config)).to(dtype).eval()
    ours = new_model(config, head_builder("pretraining"), seed=0).to(dtype).eval()
    found, unused = name_table(ours).from_hugging_face(theirs.state_dict(), ours.state_dict())
    assert not unused
    assert set(ours.state_dict()) - set(found) == {"head.lm.decoder.weight"}
    ours.load_state_dict(found, strict=False)
    return ours, theirs


def each_alone(theirs: BertModel, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Hidden states `[T, H]` and pooled ones `[N, H]` of sequences that are run one by one, so that none is padded."""
    lengths = batch.lengths.tolist()
    parts = zip(batch.input_ids.split(lengths), batch.token_type_ids.split(lengths), strict=True)
    with torch.inference_mode():
        found = [theirs(input_ids=ids[None], token_type_ids=types[None]) for ids, types in parts]
    return torch.cat([one.last_hidden_state[0] for one in found]), torch.cat([one.pooler_output for one in found])


@pytest.mark.parametrize(("size", "tolerance"), [("base", 2e-5), ("large", 3e-5)])
def test_hidden_states_of_random_models(size: str, tolerance: float) -> None:
    config = replace(EncoderConfig.from_size(size, vocab_size=1000), num_hidden_layers=6)
    torch.manual_seed(0)
    theirs = BertModel(hugging_face_config(config)).eval()
    ours = new_model(config, head_builder("encoder"), seed=0).eval()
    found, _ = name_table(ours).from_hugging_face(theirs.state_dict(), ours.state_dict())
    ours.load_state_dict(found)
    batch = random_batch(RAGGED if size == "base" else (512, 1, 37, 37, 150), 1000)
    hidden, pooled = each_alone(theirs, batch)
    with torch.inference_mode():
        assert (ours.encoder(batch) - hidden).abs().max() < tolerance
        assert (ours(batch) - pooled).abs().max() < tolerance


def test_hidden_states_of_real_weights(minilm: Path) -> None:
    theirs = BertModel.from_pretrained(minilm).eval()
    ours = bw.load(minilm)
    batch = random_batch(RAGGED, ours.config.vocab_size)
    expected, _ = each_alone(theirs, batch)
    with torch.inference_mode():
        assert (ours.model.encoder(batch) - expected).abs().max() < 2e-5


def test_losses_and_every_gradient_of_mini_in_float64() -> None:
    config = EncoderConfig.from_size("mini", vocab_size=1000)
    ours, theirs = pretraining_pair(config, torch.float64)
    batch = random_batch((128, 5, 90, 128, 33), 1000)
    rows = np.sort(np.random.default_rng(3).choice(batch.num_tokens, 60, replace=False))
    labels = torch.randint(5, 1000, (60,), generator=torch.Generator().manual_seed(0))
    follows = torch.tensor([0, 1, 1, 0, 1])
    batch.targets = {"mlm_index": torch.from_numpy(rows), "mlm_labels": labels, "next_sentence_label": follows}
    flat = torch.full((batch.num_tokens,), -100)
    flat[rows] = labels
    padded_labels = torch.full((5, 128), -100)
    for row, part in enumerate(flat.split(batch.lengths.tolist())):
        padded_labels[row, : len(part)] = part
    expected = theirs(**padded(batch), labels=padded_labels, next_sentence_label=follows)

    objective = BertObjective()
    sums, counts = objective.sums(ours(batch), batch.targets), objective.counts(batch.targets)
    loss = sums["mlm_loss"] / counts["mlm_loss"] + sums["nsp_loss"] / counts["nsp_loss"]
    assert abs(loss.item() - expected.loss.item()) < 1e-6
    loss.backward()
    expected.loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    found, _ = name_table(ours).from_hugging_face(gradients, dict(ours.named_parameters()))
    compared = 0
    for name, parameter in ours.named_parameters():
        if name in found:
            assert (parameter.grad - found[name]).abs().max() < 1e-6, name
            compared += 1
    assert compared == len(list(ours.named_parameters()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_packing_changes_nothing(dtype: torch.dtype, tolerance: float) -> None:
    model = new_model(EncoderConfig.from_size("mini", vocab_size=500), head_builder("encoder"), seed=0).to(dtype).eval()
    batch = random_batch((200, 3, 77, 77, 1, 128), 500)
    parts = batch.input_ids.split(batch.lengths.tolist())
    segments = batch.token_type_ids.split(batch.lengths.tolist())
    with torch.inference_mode():
        together = model.encoder(batch).split(batch.lengths.tolist())
        for number, (ids, types) in enumerate(zip(parts, segments, strict=True)):
            alone = model.encoder(pack_sequences([(ids.numpy(), types.numpy())]))
            assert (alone - together[number]).abs().max() < tolerance
        order = [3, 0, 5, 4, 1, 2]
        shuffled = model.encoder(pack_sequences([(parts[i].numpy(), segments[i].numpy()) for i in order]))
        for place, states in zip(order, shuffled.split([int(batch.lengths[i]) for i in order]), strict=True):
            assert (states - together[place]).abs().max() < tolerance
