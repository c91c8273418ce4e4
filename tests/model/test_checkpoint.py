"""Hugging Face directories both ways, and the load report."""

from __future__ import annotations

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
from bothways.checkpoint.weights import find_model
from bothways.errors import UserError
from bothways.model.families import head_builder
from bothways.model.task_heads import SequenceHead
from tests.helpers import hugging_face_config, padded, random_batch, tiny_config, tiny_tokenizer, unpadded
from tests.model.saved import edit_config

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
