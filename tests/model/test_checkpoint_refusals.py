"""Directories that are no models, or not as they should be, are refused in a line; pickled code never runs."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import (
    BertForMaskedLM,
)

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.checkpoint.weights import FOREIGN_FILES
from bothways.errors import UserError
from bothways.model.families import head_builder
from tests.helpers import hugging_face_config, tiny_config, tiny_tokenizer
from tests.model.saved import edit_config, saved


def test_refusals(tmp_path: Path) -> None:
    model = saved(tmp_path)
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load_checkpoint(tmp_path)
    with pytest.raises(UserError, match="no such model directory"):
        load_checkpoint(tmp_path / "absent" / "too deep" / "here")
    edit_config(model, hidden_size=64)
    with pytest.raises(UserError, match=r"does not fit the weights.*\[80, 64\].*\[80, 32\]"):
        load_checkpoint(model)
    edit_config(model, hidden_size=32, num_hidden_layers=1)
    with pytest.raises(UserError, match=r"num_hidden_layers 1, the file holds"):
        load_checkpoint(model)
    edit_config(model, num_hidden_layers=2, position_embedding_type="relative_key")
    with pytest.raises(UserError, match="relative_key"):
        load_checkpoint(model)
    edit_config(model, position_embedding_type="absolute", model_type="roberta")
    with pytest.raises(UserError, match="roberta"):
        load_checkpoint(model)


def test_why_the_hub_gives_no_model_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    offline = "the hub's cache has no model of this name; HF_HUB_OFFLINE keeps it from being downloaded"
    with pytest.raises(UserError, match=f"^nobody/nothing: no such model directory, and {offline}$"):
        load_checkpoint("nobody/nothing")

    def unreachable(*given: object, **more: object) -> None:
        raise LocalEntryNotFoundError("Got: no such host\nPlease check your connection.")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(UserError, match=r"has no model of this name, cannot be reached \(Got: no such host\)$"):
        load_checkpoint("nobody/nothing")

    def answered(*given: object, **more: object) -> None:
        raise ValueError("401 Client Error\n\nInvalid username or password.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answered)
    with pytest.raises(UserError, match=r"and the hub gave no model of this name \(401 Client Error\)$"):
        load_checkpoint("nobody/nothing")


def test_another_vocabulary_is_refused(tmp_path: Path, minilm: Path) -> None:
    model = saved(tmp_path)
    for name in ("tokenizer.json", "vocab.txt"):
        (model / name).write_bytes((minilm / name).read_bytes())
    with pytest.raises(UserError, match=r"another model's.*30522.*80"):
        load_checkpoint(model)
    lines = [*tiny_tokenizer()._vocabulary]
    lines[-1], lines[-2] = lines[-2], lines[-1]
    (model / "tokenizer.json").unlink()
    (model / "vocab.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="another model's: trained with tokenizer"):
        load_checkpoint(model)


class Evil:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("pwned",))


def test_pickled_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved(tmp_path)
    (model / "model.safetensors").unlink()
    torch.save({"bert.embeddings.word_embeddings.weight": Evil()}, model / "pytorch_model.bin")
    with pytest.raises(UserError, match="refused"):
        load_checkpoint(model)
    assert "pwned" not in capsys.readouterr().out
    (model / "pytorch_model.bin").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"refused|cannot be read"):
        load_checkpoint(model)
    (model / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="both missing"):
        load_checkpoint(model)


def test_a_task_with_another_head_is_refused(tmp_path: Path) -> None:
    state = {"task": "classify", "labels": ["a", "b"], "problem_type": "single_label_classification"}
    head = head_builder("sequence", 2)
    save_checkpoint(Checkpoint(new_model(tiny_config(), head, seed=1), tiny_tokenizer(), state), tmp_path / "m")
    edit_config(tmp_path / "m", architectures=["BertModel"])
    with pytest.raises(UserError, match=r"needs trained weights|says classify, which needs a SequenceHead"):
        bw.load(tmp_path / "m").classify("the dog")
    edit_config(tmp_path / "m", architectures=[["BertForSequenceClassification"]])
    with pytest.raises(UserError, match=r"architectures is .* expected a list of names"):
        bw.load(tmp_path / "m")


def test_an_untied_decoder_is_refused(tmp_path: Path) -> None:
    BertForMaskedLM(hugging_face_config(tiny_config(), tie_word_embeddings=False)).save_pretrained(tmp_path)
    tiny_tokenizer().save(tmp_path)
    with pytest.raises(UserError, match="decoder is not its token table"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 0},
        {"hidden_size": -32},
        {"hidden_dropout_prob": 2.0},
        {"type_vocab_size": 0},
        {"intermediate_size": 10**21},
        {"num_hidden_layers": 10**9},
        {"max_position_embeddings": 1 << 40},
        {"vocab_size": 1 << 24, "hidden_size": 1 << 24},
        {"intermediate_size": "64"},
        {"hidden_size": 32.0},
        {"hidden_size": True},
        {"hidden_size": None},
        {"layer_norm_eps": float("nan")},
        {"layer_norm_eps": -1e-12},
        {"initializer_range": "0.02"},
        {"classifier_dropout": "0.1"},
        {"pad_token_id": "x"},
        {"is_decoder": 1},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"pruned_heads": {"0": [1]}},
        {"add_cross_attention": True},
    ],
)
def test_impossible_configs_are_one_line(change: dict[str, object], tmp_path: Path) -> None:
    model = saved(tmp_path)
    edit_config(model, pad_token_id=None)
    load_checkpoint(model)
    edit_config(model, **change)
    with pytest.raises(UserError, match=rf"config\.json.*{next(iter(change))}|vocab_size") as refusal:
        load_checkpoint(model)
    assert "\n" not in str(refusal.value)


def test_shards_of_pickled_tensors_open(tmp_path: Path) -> None:
    model = saved(tmp_path)
    whole = load_checkpoint(model)
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    files = {name: f"pytorch_model-0000{1 + n % 2}-of-00002.bin" for n, name in enumerate(weights)}
    for file in set(files.values()):
        torch.save({name: weights[name] for name in weights if files[name] == file}, model / file)
    index = model / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    again = load_checkpoint(model)
    before, after = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for stray in ("../elsewhere.bin", "absent.bin", 7):
        index.write_text(json.dumps({"weight_map": {**files, "x": stray}}))
        with pytest.raises(UserError, match="which is not beside it"):
            load_checkpoint(model)
    torch.save({"bert.embeddings.word_embeddings.weight": Evil()}, model / "pytorch_model-00001-of-00002.bin")
    index.write_text(json.dumps({"weight_map": files}))
    with pytest.raises(UserError, match="refused"):
        load_checkpoint(model)


@pytest.mark.parametrize("name", FOREIGN_FILES)
def test_a_model_in_another_form_is_named(name: str, tmp_path: Path) -> None:
    model = saved(tmp_path)
    (model / name).write_text("{}")
    if name == "bert_config.json":
        (model / "config.json").unlink()
    elif name != "adapter_config.json":  # which counts beside a whole model as well
        load_checkpoint(model)
        (model / "model.safetensors").unlink()
    with pytest.raises(UserError, match=f"{name} is "):
        load_checkpoint(model)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    model = saved(tmp_path)
    weights = load_file(model / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    save_file({**weights, name: weights[name].to(torch.int8)}, model / "model.safetensors")
    with pytest.raises(UserError, match=f"{name} is of torch.int8"):
        load_checkpoint(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    model = saved(tmp_path)
    weights = load_file(model / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.bias"
    weights[name][3] = value
    save_file(weights, model / "model.safetensors")
    with pytest.raises(UserError, match=f"{name} holds NaN or infinity"):
        load_checkpoint(model)
    weights[name][3] = 3e38  # a number, but what is computed with it is none
    weights["bert.encoder.layer.0.output.dense.weight"][3] = 3e38
    save_file(weights, model / "model.safetensors")
    config = {"architectures": ["BertForQuestionAnswering"]}
    edit_config(model, **config)
    (model / "bothways.json").unlink()
    qa = {"qa_outputs.weight": torch.full((2, 32), 3e38), "qa_outputs.bias": torch.zeros(2)}
    save_file({**weights, **qa}, model / "model.safetensors")
    with pytest.raises(UserError, match="scores are NaN or infinite"):
        bw.load(model, precision="float32").answer("the dog?", "the red dog runs in the house")
