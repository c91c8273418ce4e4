"""How attention and fills formed: the checkpoints of a run on the same text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from bothways.explain.page_data import FINE, compress_weights, read
from bothways.explain.predictions import prediction_view
from bothways.explain.record import record

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel


def checkpoint_view(model: LoadedModel, run: Path, text: str) -> tuple[list[dict[str, Any]] | None, list[str]]:
    """Attention and predictions of every checkpoint that the run still has, oldest first, and notes on those that were
    left out; None where there are fewer than two. The model's weights are put back."""
    paths = sorted((run / "checkpoints").glob("step-[0-9]*"))
    batch, tokens, words = read(model.tokenizer, [model.tokenizer.encode(text)])
    config = model.config
    size = len(paths) * config.num_hidden_layers * config.num_attention_heads * batch.num_tokens**2
    if len(paths) < 2:
        return None, []
    if size > FINE:
        return None, ["too long a text for the checkpoints of the run"]
    own = {name: parameter.detach().clone() for name, parameter in model.model.named_parameters()}
    found, notes = [], []
    try:
        for path in paths:
            try:
                missing, unexpected = model.model.load_state_dict(load_file(path / "model.safetensors"), strict=False)
            except (SafetensorError, OSError, RuntimeError) as error:
                notes.append(f"{path.name} is left out: {str(error).splitlines()[0]}")
                continue
            if unexpected or [name for name in missing if name in own]:
                notes.append(f"{path.name} is left out: it is of another model")
                continue
            with torch.no_grad():
                seen = record(model.model.encoder, batch.to(model.device))
            predictions = prediction_view(model, batch.to(model.device), tokens, words) or {}
            kept = {key: predictions[key] for key in ("fills",) if key in predictions}
            found.append({"name": _name(path), "weights": compress_weights(seen.weights, size), **kept})
    finally:
        model.model.load_state_dict(own, strict=False)
    return (found if len(found) > 1 else None), notes


def _name(path: Path) -> str:
    return f"step {int(path.name.removeprefix('step-')):,}"
