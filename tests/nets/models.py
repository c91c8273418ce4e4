"""Small models of every Hugging Face class, the same bits on every machine: weights are integers' hashes, scaled.

fixtures/models/NAME/ has all of a model's directory but the vocabulary, which is one for all, and the weights, which
`assemble` works out. Of the fine-tuned ones config.json, bothways.json and so on were written by fine-tuning.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.nets.golden import FIXTURES

Tensors = dict[str, np.ndarray]

# What is on the encoder, by class: a pooler, the language-model transform, and other layers with their rows.
PARTS: dict[str, tuple[bool, bool, dict[str, int]]] = {
    "BertForPreTraining": (True, True, {"cls.seq_relationship": 2}),
    "BertForMaskedLM": (False, True, {}),
    "BertLMHeadModel": (False, True, {}),
    "BertForSequenceClassification": (True, False, {"classifier": 0}),
    "BertForTokenClassification": (False, False, {"classifier": 0}),
    "BertForQuestionAnswering": (False, False, {"qa_outputs": 2}),
    "BertForMultipleChoice": (True, False, {"classifier": 1}),
    "BertModel": (True, False, {}),
}
BASE: dict[str, Any] = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "hidden_act": "gelu", "max_position_embeddings": 64, "type_vocab_size": 2, "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1, "layer_norm_eps": 1e-12, "initializer_range": 0.02, "pad_token_id": 0,
}  # fmt: skip
CAUSAL = {**BASE, "architectures": ["BertLMHeadModel"], "is_decoder": True}

# Models that are pretrained, or made elsewhere: only a config. `bert`, `gelu_new`: as transformers writes them.
CONFIGS: dict[str, dict[str, Any]] = {
    "pretraining": {**BASE, "architectures": ["BertForPreTraining"]},
    "masked": {**BASE, "architectures": ["BertForMaskedLM"], "hidden_act": "gelu_new"},
    "causal": CAUSAL,
    "encoder": {**BASE, "architectures": ["BertModel"], "type_vocab_size": 1, "hidden_act": "relu"},
    "foreign-classifier": {
        **BASE,
        "architectures": ["BertForSequenceClassification"],
        "id2label": {"0": "no", "1": "yes"},
    },
}
# Fine-tuned ones: the model they were made of, then `bothways finetune`'s own arguments.
FINETUNED: dict[str, tuple[str, ...]] = {
    "classify": ("pretraining", "classify", "--train", "tickets.jsonl"),
    "pairs": ("pretraining", "classify", "--train", "pair-labels.jsonl", "--pair-column", "pair"),
    "several": (
        *("pretraining", "classify", "--train", "several.jsonl", "--eval", "several.jsonl"),
        *("--problem-type", "multi_label_classification"),
    ),
    "regression": ("pretraining", "classify", "--train", "scores.jsonl", "--problem-type", "regression"),
    "answer": ("pretraining", "answer", "--train", "questions.jsonl", "--eval", "questions.jsonl", "--overlap", "16"),
    "tag": ("pretraining", "tag", "--train", "entities.jsonl"),
    "words": ("pretraining", "tag", "--train", "words.jsonl", "--scheme", "plain"),
    "choose": ("pretraining", "choose", "--train", "choices.jsonl"),
    "similar": ("pretraining", "similar", "--train", "pairs.jsonl"),
    "similar-cls": ("pretraining", "similar", "--train", "pairs.jsonl", "--pooling", "cls"),
    "instruct": ("causal", "instruct", "--train", "conversations.jsonl"),
}
NAMES = (*CONFIGS, *FINETUNED)


def assemble(name: str, directory: Path) -> Path:
    """Put a model's directory together."""
    shutil.copytree(FIXTURES / "vocabulary", directory)
    shutil.copytree(FIXTURES / "models" / name, directory, dirs_exist_ok=True)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    tensors = weights(config, sentence_vectors=(directory / "modules.json").exists())
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def weights(config: dict[str, Any], sentence_vectors: bool) -> Tensors:
    """Tensors under Hugging Face names for a config."""
    size, inner = config["hidden_size"], config["intermediate_size"]
    architecture = config["architectures"][0]
    pooler, language, layers = PARTS[architecture]
    tensors: Tensors = {}

    def embedding(name: str, rows: int) -> None:
        tensors[f"{name}.weight"] = _numbers((rows, size), len(tensors), 1.0)

    def linear(name: str, rows: int, columns: int = size) -> None:
        tensors[f"{name}.weight"] = _numbers((rows, columns), len(tensors), 1.5)
        tensors[f"{name}.bias"] = _numbers((rows,), len(tensors), 0.5)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = 1 + _numbers((size,), len(tensors), 0.5)
        tensors[f"{name}.bias"] = _numbers((size,), len(tensors), 0.5)

    embedding("bert.embeddings.word_embeddings", config["vocab_size"])
    embedding("bert.embeddings.position_embeddings", config["max_position_embeddings"])
    embedding("bert.embeddings.token_type_embeddings", config["type_vocab_size"])
    norm("bert.embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{number}"
        for one in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{one}", size)
        linear(f"{layer}.attention.output.dense", size)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", inner)
        linear(f"{layer}.output.dense", size, inner)
        norm(f"{layer}.output.LayerNorm")
    if pooler and not sentence_vectors:
        linear("bert.pooler.dense", size)
    if language:
        linear("cls.predictions.transform.dense", size)
        norm("cls.predictions.transform.LayerNorm")
        tensors["cls.predictions.bias"] = _numbers((config["vocab_size"],), len(tensors), 0.5)
    for name, rows in layers.items():
        linear(name, rows or len(config["id2label"]))
    bare = architecture == "BertModel"
    return {name.removeprefix("bert.") if bare else name: tensor for name, tensor in tensors.items()}


def _numbers(shape: tuple[int, ...], salt: int, width: float) -> np.ndarray:
    """float32 between -width/2 and width/2: a hash of each place (Murmur's last steps), exact in every step."""
    hashed = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64((salt + 1) * 0x9E3779B1)
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):
        hashed = (hashed ^ (hashed >> np.uint64(shift))) * np.uint64(factor)
    level = ((hashed ^ (hashed >> np.uint64(33))) >> np.uint64(40)).astype(np.float32)
    return ((level / np.float32(1 << 24) - np.float32(0.5)) * np.float32(width)).reshape(shape)
