"""Hugging Face directories both ways, the load report, and what is refused."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.checkpoint.weights import FOREIGN_FILES, find_model
from bothways.errors import UserError
from bothways.model.families import head_builder
from bothways.model.task_heads import SequenceHead
from tests.helpers import hugging_face_config, padded, random_batch, tiny_config, tiny_tokenizer, unpadded

HEADS = {
    "BertModel": (head_builder("encoder"), BertModel),
    "BertForPreTraining": (head_builder("pretraining"), BertForPreTraining),
    "BertForMaskedLM": (head_builder("masked-LM"), BertForMaskedLM),
    "BertForSequenceClassification": (head_builder("sequence", 3), BertForSequenceClassification),
    "BertForTokenClassification": (head_builder("token", 3), BertForTokenClassification),
    "BertForQuestionAnswering": (head_builder("span"), BertForQuestionAnswering),
    "BertForMultipleChoice": (head_builder("choice"), BertForMultipleChoice),
}
LABELLED = ("BertForSequenceClassification", "BertForTokenClassification")
LABELS = ["billing", "hardware", "software"]


def our_scores(model: torch.nn.Module, name: str) -> list[torch.Tensor]:
    batch = random_batch((20, 5, 33), 60)
    batch.targets = dict.fromkeys(("mlm_index", "word_index"), torch.arange(batch.num_tokens))
    with torch.inference_mode():
        scores = model(batch)
        if name == "BertForPreTraining":
            return [scores.mlm.logits, scores.nsp]
        return [scores.mlm.logits] if name == "BertForMaskedLM" else [scores]


def their_scores(model: torch.nn.Module, name: str) -> list[torch.Tensor]:
    batch = random_batch((20, 5, 33), 60)
    inputs = padded(batch)
    if name == "BertForMultipleChoice":
        inputs = {key: values[None] for key, values in inputs.items()}
    with torch.inference_mode():
        output = model(**inputs)
    if name == "BertForMultipleChoice":
        return [output.logits[0]]
    if name == "BertForQuestionAnswering":
        return [unpadded(torch.stack([output.start_logits, output.end_logits], -1), batch)]
    if name == "BertModel":
        return [output.pooler_output]
    if name == "BertForPreTraining":
        return [unpadded(output.prediction_logits, batch), output.seq_relationship_logits]
    per_token = name in ("BertForMaskedLM", "BertForTokenClassification")
    return [unpadded(output.logits, batch)] if per_token else [output.logits]


@pytest.mark.parametrize("name", HEADS)
def test_transformers_opens_what_we_save(name: str, tmp_path: Path) -> None:
    head, theirs = HEADS[name]
    state = {"labels": LABELS} if name in LABELLED else {}
    checkpoint = Checkpoint(new_model(tiny_config(), head, seed=1).eval(), tiny_tokenizer(), state)
    save_checkpoint(checkpoint, tmp_path / "model")
    opened, loading = theirs.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    for ours, expected in zip(our_scores(checkpoint.model, name), their_scores(opened.eval(), name), strict=True):
        assert (ours - expected).abs().max() < 1e-5
    if state:
        assert opened.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize("name", HEADS)
def test_we_open_what_transformers_saves(name: str, tmp_path: Path) -> None:
    _, theirs = HEADS[name]
    torch.manual_seed(2)
    labels = 2 if name == "BertForQuestionAnswering" else 3
    model = theirs(hugging_face_config(tiny_config(), num_labels=labels)).eval()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save(tmp_path)
    opened = load_checkpoint(tmp_path)
    assert opened.report is not None
    assert not opened.report.newly_initialised
    assert not opened.report.unused
    for ours, expected in zip(our_scores(opened.model, name), their_scores(model, name), strict=True):
        assert (ours - expected).abs().max() < 1e-5


def test_saving_and_loading_is_the_identity(tmp_path: Path) -> None:
    checkpoint = Checkpoint(
        new_model(tiny_config(), head_builder("pretraining"), seed=1), tiny_tokenizer(), {"note": 1}
    )
    save_checkpoint(checkpoint, tmp_path / "m")
    save_checkpoint(checkpoint, tmp_path / "m")  # replaces itself
    again = load_checkpoint(tmp_path / "m")
    before, after = checkpoint.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again.metadata["note"] == 1
    assert again.config == checkpoint.config
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_old_names_and_pickled_tensors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BertForPreTraining(hugging_face_config(tiny_config(), architectures=["BertForPreTraining"])).eval()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in model.state_dict().items()
        if name != "cls.predictions.decoder.bias"
    }
    torch.save(old, tmp_path / "pytorch_model.bin")
    model.config.save_pretrained(tmp_path)
    tiny_tokenizer().save(tmp_path)
    opened = load_checkpoint(tmp_path)
    assert opened.report is not None
    assert opened.report.newly_initialised == []
    for ours, expected in zip(
        our_scores(opened.model, "BertForPreTraining"), their_scores(model, "BertForPreTraining"), strict=True
    ):
        assert (ours - expected).abs().max() < 1e-5


def test_report_says_what_is_expected(tmp_path: Path) -> None:
    save_checkpoint(
        Checkpoint(new_model(tiny_config(), head_builder("pretraining"), seed=1), tiny_tokenizer()), tmp_path / "m"
    )
    report = load_checkpoint(tmp_path / "m", head_builder("sequence", 3), labels=LABELS).report
    assert report is not None
    assert report.newly_initialised == ["head.classifier.weight", "head.classifier.bias"]
    assert "cls.seq_relationship.weight" in report.unused
    assert report.encoder_complete
    assert "expected before fine-tuning" in report.sentence()
    weights = load_file(tmp_path / "m" / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if "layer.1.output.dense" not in name}
    save_file(weights, tmp_path / "m" / "model.safetensors")
    with pytest.raises(UserError, match=r"2 newly initialised.*NOT expected, the file lacks parts of the encoder"):
        load_checkpoint(tmp_path / "m")


def test_a_classifier_of_other_labels_starts_anew(tmp_path: Path) -> None:
    state = {"labels": LABELS}
    checkpoint = Checkpoint(new_model(tiny_config(), head_builder("sequence", 3), seed=1), tiny_tokenizer(), state)
    save_checkpoint(checkpoint, tmp_path / "m")
    same = load_checkpoint(tmp_path / "m", head_builder("sequence", 3), labels=LABELS)
    other = load_checkpoint(tmp_path / "m", head_builder("sequence", 3), labels=["x", "y", "z"])
    assert same.report is not None
    assert other.report is not None
    assert not same.report.newly_initialised
    assert other.report.newly_initialised == ["head.classifier.weight", "head.classifier.bias"]


def saved(tmp_path: Path) -> Path:
    save_checkpoint(
        Checkpoint(new_model(tiny_config(), head_builder("pretraining"), seed=1), tiny_tokenizer()), tmp_path / "m"
    )
    return tmp_path / "m"


def edit_config(model: Path, **values: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **values}))


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


def test_the_packaged_model_opens_with_its_tokenizer(minilm: Path) -> None:
    model = bw.load(minilm)
    assert model.report is not None
    assert model.report.newly_initialised == []
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    text = "The café’s Wi-Fi — 5 GHz — doesn't work!"
    states = model.hidden_states(text)
    assert states.shape == (len(tokenizer(text)["input_ids"]), 384)
    assert states.dtype == torch.float32


def test_two_default_labels_and_missing_architectures(tmp_path: Path) -> None:
    """transformers writes no id2label for LABEL_0 and LABEL_1; early files name no architecture."""
    torch.manual_seed(3)
    model = BertForSequenceClassification(hugging_face_config(tiny_config())).eval()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save(tmp_path)
    opened = bw.load(tmp_path)
    assert opened.labels == ["LABEL_0", "LABEL_1"]
    for ours, expected in zip(
        our_scores(opened.model, "BertForSequenceClassification"),
        their_scores(model, "BertForSequenceClassification"),
        strict=True,
    ):
        assert (ours - expected).abs().max() < 1e-5
    edit_config(tmp_path, architectures=None)
    assert isinstance(load_checkpoint(tmp_path).model.head, SequenceHead)
    edit_config(tmp_path, problem_type="multi_label_classification", architectures=["BertForSequenceClassification"])
    assert isinstance(bw.load(tmp_path).classify("the dog"), bw.MultiClassification)
    edit_config(tmp_path, problem_type="ranking")
    with pytest.raises(UserError, match="not a classifier"):
        bw.load(tmp_path).classify("the dog")
    edit_config(tmp_path, problem_type=None, id2label={"0": "a", "1": "a"})
    with pytest.raises(UserError, match="a name twice"):
        load_checkpoint(tmp_path)
    edit_config(tmp_path, id2label=["a", "b"])
    with pytest.raises(UserError, match="expected numbers to names"):
        load_checkpoint(tmp_path)


def test_what_was_trained_on_elsewhere_since_is_what_the_config_says(tmp_path: Path) -> None:
    state = {"task": "classify", "labels": ["a", "b"], "problem_type": "single_label_classification"}
    head = head_builder("sequence", 2)
    save_checkpoint(Checkpoint(new_model(tiny_config(), head, seed=1), tiny_tokenizer(), state), tmp_path / "m")
    assert bw.load(tmp_path / "m").labels == ["a", "b"]
    edit_config(tmp_path / "m", id2label={"0": "c", "1": "d"})
    assert bw.load(tmp_path / "m").labels == ["c", "d"]
    edit_config(tmp_path / "m", problem_type="regression")
    with pytest.raises(UserError, match=r"a regression of 2 numbers \(c, d\) is not read"):
        bw.load(tmp_path / "m").classify("the dog")


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


def test_half_precision_and_shards_open(tmp_path: Path) -> None:
    model = BertForPreTraining(hugging_face_config(tiny_config())).eval()
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    tiny_tokenizer().save(tmp_path / "shards")
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    whole = load_checkpoint(tmp_path / "shards")
    assert (
        our_scores(whole.model, "BertForPreTraining")[0] - their_scores(model, "BertForPreTraining")[0]
    ).abs().max() < 1e-5
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    tiny_tokenizer().save(tmp_path / "half")
    half = load_checkpoint(tmp_path / "half")
    assert next(half.model.parameters()).dtype == torch.float32
    (tmp_path / "half" / "model.safetensors").unlink()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "half" / "pytorch_model.bin")
    with pytest.raises(UserError, match="not a plain file of named tensors"):
        load_checkpoint(tmp_path / "half")


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


def test_from_the_hub_every_file_that_counts_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = "config.json tokenizer_config.json vocab.txt added_tokens.json special_tokens_map.json modules.json "
    fetched += "config_sentence_transformers.json sentence_roberta_config.json 1_Pooling/config.json 0_BERT/vocab.txt "
    fetched += (
        "0_BERT/pytorch_model.bin pytorch_model-00001-of-00002.bin pytorch_model.bin.index.json adapter_config.json"
    )
    wanted: list[str] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        wanted.extend(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_model("bert-base-uncased") == tmp_path
    assert {file for file in fetched.split() if not any(fnmatch(file, pattern) for pattern in wanted)} == set()
    assert not any(fnmatch(file, pattern) for file in ("tf_model.h5", "rust_model.ot") for pattern in wanted)
