"""The checkpoints of a run on the same text: how attention and the guesses for masked words took shape."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bothways.checkpoint.unfinished import read_parameters
from bothways.errors import UserError
from bothways.explain.page_data import MAX_FINE_WEIGHTS, compress_weights
from bothways.explain.predictions import prediction_view
from bothways.explain.record import record
from bothways.explain.tokens import tokens_of_text

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel


def checkpoint_view(model: LoadedModel, run: Path, text: str) -> tuple[list[dict[str, Any]] | None, list[str]]:
    """Every checkpoint that the run still has reads the text with the model's layers; afterwards the model has its own
    weights again.

    Returns the attention and the predictions of each checkpoint, oldest first, or None where fewer than two can be
    read; and a note on each that was left out.
    """
    paths = sorted((run / "checkpoints").glob("step-[0-9]*"))
    batch, tokens, words = tokens_of_text(model.tokenizer, [model.tokenizer.encode(text)])
    batch = batch.to(model.device)
    config = model.config
    num_weights = len(paths) * config.num_hidden_layers * config.num_attention_heads * batch.num_tokens**2
    if len(paths) < 2:
        return None, []
    if num_weights > MAX_FINE_WEIGHTS:
        return None, ["too long a text for the checkpoints of the run"]
    own_weights = {name: parameter.detach().clone() for name, parameter in model.model.named_parameters()}
    series, notes = [], []
    try:
        for path in paths:
            problem = _load_weights(model, path)
            if problem is not None:
                notes.append(f"{path.name} is left out: {problem}")
                continue
            with torch.no_grad():
                recorded = record(model.model.encoder, batch)
            predictions = prediction_view(model, batch, tokens, words) or {}
            fills = {key: predictions[key] for key in ("fills",) if key in predictions}
            series.append(
                {"name": _step_name(path), "weights": compress_weights(recorded.weights, num_weights), **fills}
            )
    finally:
        model.model.load_state_dict(own_weights, strict=False)
    return (series if len(series) > 1 else None), notes


def _load_weights(model: LoadedModel, path: Path) -> str | None:
    """The model gets a checkpoint's weights. Returns what is wrong with the checkpoint, or None."""
    names = dict(model.model.named_parameters())
    try:
        missing, unexpected = model.model.load_state_dict(read_parameters(path), strict=False)
    except (UserError, RuntimeError) as error:
        return str(error).removeprefix(f"{path}: ").splitlines()[0]
    return "it is of another model" if unexpected or any(name in names for name in missing) else None


def _step_name(path: Path) -> str:
    return f"step {int(path.name.removeprefix('step-')):,}"
