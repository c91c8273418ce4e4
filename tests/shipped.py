"""A stand-in for the package of shipped models: tiny ones with random weights, stored as the real ones are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from bothways.checkpoint.compact import save_compact
from bothways.checkpoint.hugging_face import Checkpoint, new_model
from bothways.model.encoder import Encoder
from bothways.model.families import head_builder
from bothways.model.heads import Head, HeadKind, Model
from bothways.model.task_heads import EmbeddingHead
from bothways.tasks.answer import AnswerOptions, AnswerTask
from bothways.tasks.similar import SimilarOptions, SimilarTask
from tests.helpers import tiny_config, tiny_tokenizer

LANGUAGE = ["fill", "score", "explain", "finetune", "bench"]
TABLE = {
    "mini": {"verbs": LANGUAGE, "about": "fills in masks"},
    "answers": {"verbs": ["answer"], "about": "finds answers"},
    "entities": {"verbs": ["tag"], "about": "marks people and places"},
    "sentence-vectors": {"verbs": ["embed", "similar"], "about": "vectors of sentences"},
    "writer": {"verbs": ["generate", "suggest"], "about": "goes on with a text"},
}
TAGS = ("O", "B-person", "I-person")
OFFSPRING: dict[str, tuple[HeadKind, dict[str, Any]]] = {
    "answers": ("span", AnswerTask(AnswerOptions(), no_answer=False).to_json()),
    "entities": ("token", {"task": "tag", "labels": list(TAGS)}),
    "sentence-vectors": ("embedding", SimilarTask(SimilarOptions()).to_json()),
}


def make_shipped(folder: Path) -> Path:
    """Write `bothways_models/` into a folder: `mini` and its offspring, which share its lower layer; `writer`."""
    package = folder / "bothways_models"
    models = package / "models"
    models.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "2026.1.1"\n')
    (package / "models.json").write_text(json.dumps(TABLE))
    mini = checkpoint("pretraining", seed=1)
    save_compact(mini, models / "mini", "int8")
    (models / "mini" / "README.md").write_text("# mini\n\nA card: data, licence, cost.\n")
    for seed, (name, (kind, metadata)) in enumerate(OFFSPRING.items(), 2):
        save_compact(offspring(mini, kind, metadata, seed), models / name, "int8", "mini")
    writer = checkpoint("causal-LM", seed=7, is_decoder=True)
    save_compact(writer, models / "writer", "float16")
    return package


def checkpoint(kind: HeadKind, seed: int, **config: object) -> Checkpoint:
    """A model that is wide enough for int8 rows."""
    shape = tiny_config(hidden_size=64, intermediate_size=128, num_attention_heads=4, **config)
    return Checkpoint(all_random(new_model(shape, head_builder(kind), seed), seed), tiny_tokenizer())


def all_random(model: Model, seed: int) -> Model:
    """The model, its biases and norms random too, as those of a trained one differ from another's."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for vector in (parameter for parameter in model.parameters() if parameter.dim() == 1):
            vector += 0.1 * torch.randn(len(vector), generator=generator)
    return model


def offspring(parent: Checkpoint, kind: HeadKind, metadata: dict[str, Any], seed: int) -> Checkpoint:
    """A model of another head, whose embeddings and first layer are its parent's, and whose second layer is not."""

    def head(encoder: Encoder) -> Head:
        return EmbeddingHead("mean") if kind == "embedding" else head_builder(kind, len(TAGS))(encoder)

    child = all_random(new_model(parent.config, head, seed), seed)
    with torch.no_grad():
        child.encoder.embeddings.load_state_dict(parent.model.encoder.embeddings.state_dict())
        child.encoder.layers[0].load_state_dict(parent.model.encoder.layers[0].state_dict())
    return Checkpoint(child, parent.tokenizer, metadata)
