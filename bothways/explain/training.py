"""How attention and fills formed: the checkpoints of a run on the same text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from bothways.errors import UserError
from bothways.explain.build import FINE, pack_weights, read
from bothways.explain.predictions import prediction_view
from bothways.explain.record import record
from bothways.train.run import RunDirectory

if TYPE_CHECKING:
    from bothways.inference.predictor import Predictor


def checkpoint_view(model: Predictor, run: Path, text: str) -> list[dict[str, Any]] | None:
    """Attention and predictions of every checkpoint that the run still has, oldest first; None where `run` is no run,
    has fewer than two, or they are not whole files. The model's weights are put back."""
    if not (run / "checkpoints").is_dir():
        return None
    paths = [path for path in RunDirectory(run).checkpoints() if (path / "model.safetensors").exists()]
    batch, tokens, _ = read(model.tokenizer, [model.tokenizer.encode(text)])
    config = model.config
    size = len(paths) * config.num_hidden_layers * config.num_attention_heads * batch.num_tokens**2
    if len(paths) < 2 or size > FINE:
        return None
    own = {name: parameter.detach().clone() for name, parameter in model.model.named_parameters()}
    found = []
    try:
        for path in paths:
            missing, unexpected = model.model.load_state_dict(load_file(path / "model.safetensors"), strict=False)
            if unexpected or [name for name in missing if name in own]:
                raise UserError(f"{path}: is not of this model ({(*unexpected, *missing)[0]})")
            seen = record(model.model.encoder, batch.to(model.device))
            found.append(
                {
                    "name": f"step {int(path.name.removeprefix('step-')):,}",
                    "weights": pack_weights(seen.weights, size),
                    **(prediction_view(model, batch.to(model.device), tokens) or {}),
                }
            )
    finally:
        model.model.load_state_dict(own, strict=False)
    return found
