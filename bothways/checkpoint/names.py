"""Names of tensors, ours ↔ Hugging Face's: one ordered table, read in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rename:
    """One line of the table: a module, whose weight and bias follow, or a parameter.

    ours, theirs: names; `*` is a layer's number. Several names in `theirs` are rows of one matrix, in this order.
    tied_to: our name of the tensor that this one is as well. Such a tensor is neither written nor read: `theirs` is
    where other files hold it a second time.
    """

    ours: str
    theirs: tuple[str, ...]
    tied_to: str | None = None


_LAYER, _THEIR_LAYER = "encoder.layers.*", "bert.encoder.layer.*"

# The first line that applies holds.
RENAMES: tuple[Rename, ...] = (
    Rename("encoder.embeddings.token", ("bert.embeddings.word_embeddings",)),
    Rename("encoder.embeddings.token_type", ("bert.embeddings.token_type_embeddings",)),
    Rename("encoder.embeddings.position", ("bert.embeddings.position_embeddings",)),
    Rename("encoder.embeddings.norm", ("bert.embeddings.LayerNorm",)),
    Rename(
        f"{_LAYER}.attention.qkv",
        tuple(f"{_THEIR_LAYER}.attention.self.{name}" for name in ("query", "key", "value")),
    ),
    Rename(f"{_LAYER}.attention.output", (f"{_THEIR_LAYER}.attention.output.dense",)),
    Rename(f"{_LAYER}.attention_norm", (f"{_THEIR_LAYER}.attention.output.LayerNorm",)),
    Rename(f"{_LAYER}.intermediate", (f"{_THEIR_LAYER}.intermediate.dense",)),
    Rename(f"{_LAYER}.output", (f"{_THEIR_LAYER}.output.dense",)),
    Rename(f"{_LAYER}.output_norm", (f"{_THEIR_LAYER}.output.LayerNorm",)),
    Rename("head.pooler.dense", ("bert.pooler.dense",)),
    Rename("head.lm.dense", ("cls.predictions.transform.dense",)),
    Rename("head.lm.norm", ("cls.predictions.transform.LayerNorm",)),
    Rename("head.lm.decoder.weight", ("cls.predictions.decoder.weight",), tied_to="encoder.embeddings.token.weight"),
    Rename("head.lm.decoder.bias", ("cls.predictions.bias",)),
    Rename("head.nsp", ("cls.seq_relationship",)),
    Rename("head.classifier", ("classifier",)),
    Rename("head.qa_outputs", ("qa_outputs",)),
)

# Other spellings, put right before RENAMES is read: TensorFlow's layer norm, the MLM bias inside the decoder.
SPELLINGS: tuple[tuple[str, str], ...] = (
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
    (r"^cls\.predictions\.decoder\.bias$", "cls.predictions.bias"),
)


def to_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under Hugging Face names, `bert.` first; fused matrices are cut into views, tied ones left out."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tied_to(name) is None:
            theirs = their_names(name)
            renamed.update(zip(theirs, tensor.chunk(len(theirs)), strict=True))
    return renamed


def from_hugging_face(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Find the `wanted` tensors (our names) among Hugging Face names; also returns the names left unused.

    Accepts files with and without the `bert.` prefix, and the older `SPELLINGS`.
    """
    modern = modern_names(state)
    theirs = {modern[name]: tensor for name, tensor in state.items()}
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for name in wanted:
        parts = their_names(name)
        if tied_to(name) is not None:
            used.update(parts)
        elif all(part in theirs for part in parts):
            found[name] = theirs[parts[0]] if len(parts) == 1 else torch.cat([theirs[part] for part in parts])
            used.update(parts)
    return found, [name for name in state if modern[name] not in used]


def their_names(name: str) -> list[str]:
    """Hugging Face's name of a parameter of ours; several where ours is fused of theirs."""
    rename, parameter, layer = _rename_of(name)
    if rename is None:
        return [name]  # a head without a Hugging Face counterpart keeps its name
    return [theirs.replace("*", layer) + parameter for theirs in rename.theirs]


def tied_to(name: str) -> str | None:
    """Our name of the tensor that this parameter of ours is a second name of; None for others."""
    rename, _, _ = _rename_of(name)
    return None if rename is None else rename.tied_to


def modern_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """A file's names as `RENAMES` spells them."""
    prefixed = any(name.startswith("bert.") for name in state)
    modern: dict[str, str] = {}
    for name in state:
        spelt = name
        for old, new in SPELLINGS:
            spelt = re.sub(old, new, spelt)
        bare = not prefixed and spelt.split(".")[0] in ("embeddings", "encoder", "pooler")
        modern[name] = f"bert.{spelt}" if bare else spelt
    return modern


def _rename_of(name: str) -> tuple[Rename | None, str, str]:
    """The line for a parameter of ours, what follows the module's name (`.weight`, or nothing), the layer's number."""
    number = re.search(r"\.layers\.(\d+)\.", name)
    pattern = re.sub(r"\.layers\.\d+\.", ".layers.*.", name)
    module, _, parameter = pattern.rpartition(".")
    layer = number[1] if number else ""
    for rename in RENAMES:
        if rename.ours == pattern:
            return rename, "", layer
        if rename.ours == module:
            return rename, f".{parameter}", layer
    return None, "", layer
