"""Weights in fewer bits, and files that share another's: what is lost, what transformers opens, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForPreTraining

from bothways.checkpoint.compact import save_compact
from bothways.checkpoint.hugging_face import load_checkpoint, save_checkpoint
from bothways.checkpoint.storage import restored, stored
from bothways.errors import UserError
from tests.shipped import OFFSPRING, checkpoint, offspring


def test_int8_rows_are_half_a_step_off_at_most() -> None:
    weights = {"a.weight": torch.randn(70, 40, generator=torch.Generator().manual_seed(0)), "a.bias": torch.ones(70)}
    weights["a.weight"][3] = 0
    weights["position.weight"] = weights["a.weight"].clone()
    tensors = stored(weights, "int8")
    types = {name: tensor.dtype for name, tensor in tensors.items()}
    assert types == {
        "a.weight": torch.int8,
        "a.weight.scale": torch.float32,
        "a.bias": torch.float32,
        "position.weight": torch.float16,
    }
    back = restored(tensors, Path("x"))
    assert set(back) == set(weights)
    step = tensors["a.weight.scale"][:, None]
    assert ((back["a.weight"] - weights["a.weight"]).abs() <= step / 2 * 1.001).all()
    assert torch.equal(back["a.weight"][3], torch.zeros(40))
    # what is restored is stored as the same bytes: an offspring of the shipped model shares its frozen matrices
    assert torch.equal(stored(back, "int8")["a.weight"], tensors["a.weight"])


def test_float16_opens_in_transformers_and_here(tmp_path: Path) -> None:
    model = checkpoint("pretraining", seed=3)
    loss = save_compact(model, tmp_path / "half", "float16")
    assert 0 < loss.max_error < 1e-3
    save_checkpoint(model, tmp_path / "whole")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] == loss.bytes < 0.55 * sizes[1]
    ours = load_checkpoint(tmp_path / "half")
    assert not {"storage", "base"} & set(ours.metadata)  # of the file, not of the model
    theirs = AutoModelForPreTraining.from_pretrained(tmp_path / "half")
    assert theirs.dtype == torch.float32
    assert torch.equal(theirs.bert.embeddings.word_embeddings.weight, ours.model.encoder.embeddings.token.weight)


@pytest.mark.parametrize("name", OFFSPRING)
def test_an_offspring_holds_what_is_its_own(name: str, tmp_path: Path) -> None:
    mini = checkpoint("pretraining", seed=1)
    kind, metadata = OFFSPRING[name]
    child = offspring(mini, kind, metadata, seed=5)
    alone = save_compact(child, tmp_path / "alone", "int8")
    save_compact(mini, tmp_path / "mini", "int8")
    beside = save_compact(child, tmp_path / name, "int8", "mini")
    assert (alone.max_error, alone.shared, beside.max_error) == (beside.max_error, 0, alone.max_error)
    held = set(load_file(tmp_path / name / "model.safetensors"))
    assert not any(".layer.0." in tensor or "embeddings" in tensor for tensor in held)
    assert beside.shared == 5 + 16  # three tables and a norm; a layer
    one, other = load_checkpoint(tmp_path / "alone"), load_checkpoint(tmp_path / name)
    assert one.metadata == other.metadata
    assert type(one.model.head) is type(other.model.head)
    for (parameter, a), (_, b) in zip(one.model.named_parameters(), other.model.named_parameters(), strict=True):
        assert torch.equal(a, b), parameter


def test_what_was_trained_from_the_shipped_weights_shares_them_too(tmp_path: Path) -> None:
    save_compact(checkpoint("pretraining", seed=1), tmp_path / "mini", "int8")
    parent = load_checkpoint(tmp_path / "mini")
    kind, metadata = OFFSPRING["answers"]
    assert save_compact(offspring(parent, kind, metadata, seed=5), tmp_path / "child", "int8", "mini").shared == 21


def edited(path: Path, **changes: object) -> None:
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, **changes}))


def test_what_does_not_fit_is_refused_by_name(shipped: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(shipped, models)
    child, base = models / "answers", models / "mini"

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            load_checkpoint(child)

    state = child / "bothways.json"
    original = state.read_text()
    edited(state, storage="int9")
    refused("storage is 'int9', did you mean 'int8'\\?; read are float32, float16, int8$")
    for bad in ("../mini", "..", "/mini", ""):
        state.write_text(original)
        edited(state, base=bad)
        refused("base is .*, expected the name of a directory beside it$")
    edited(state, base="maxi")
    refused(r"answers: shares weights with 'maxi', which is not beside it: .*maxi is no model$")
    edited(state, base="entities")
    refused("base is 'entities', which shares weights with another itself$")
    edited(state, base="writer")
    refused("its base 'writer' are others than those")
    state.write_text(original)
    edited(base / "config.json", hidden_size=32)
    refused("its base 'mini' has hidden_size 32, this model 64$")
    edited(base / "config.json", hidden_size=64)
    weights = load_file(base / "model.safetensors")
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    save_file({**weights, name: -weights[name]}, base / "model.safetensors")
    refused("the weights of its base 'mini' are others than those it was stored beside$")
    save_file({**weights, f"{name}.scale": torch.ones(3)}, base / "model.safetensors")
    with pytest.raises(UserError, match=r"is \[128, 64\] with scales \[3\] of torch.float32, expected a matrix and a"):
        load_checkpoint(base)


def test_what_cannot_be_stored_is_refused_by_name(tmp_path: Path) -> None:
    model = checkpoint("pretraining", seed=1)
    with pytest.raises(UserError, match=r"^storage='int4': expected one of float32, float16, int8$"):
        save_compact(model, tmp_path / "x", "int4")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="shares weights with 'mini', which is not beside it"):
        save_compact(model, tmp_path / "x", "int8", "mini")
    save_compact(checkpoint("pretraining", seed=1, num_hidden_layers=1), tmp_path / "mini", "int8")
    with pytest.raises(UserError, match=r"its base 'mini' has num_hidden_layers 1, this model 2$"):
        save_compact(model, tmp_path / "x", "int8", "mini")
    model.model.encoder.embeddings.token.weight.data[0, 0] = 1e6
    with pytest.raises(UserError, match=r"word_embeddings.weight holds numbers above 65,504; float16 has none$"):
        save_compact(model, tmp_path / "x", "float16")
    assert not (tmp_path / "x").exists()
