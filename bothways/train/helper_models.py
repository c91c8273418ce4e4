"""Models that a head asks besides its encoder, as ELECTRA's generator, when a model is trained on: those of the run
that trained it, or new ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint
from bothways.errors import UserError
from bothways.remote_files import has_file

IN_HEAD = "head.generator."  # names of a helper's tensors in the model whose head asks it


def take_helpers(checkpoint: Checkpoint, run: str) -> Iterator[str]:
    """Give the head's helpers the weights that a finished run has of them, in the folder of their name. What they share
    with the model stays the model's.

    run: what was asked for as the model, a directory or a URL. Yields, for each helper, a line that says whose weights
    it begins with.
    Raises UserError for a helper of another shape than the head makes.
    """
    model, helpers = checkpoint.model, [*checkpoint.model.head.helpers()]
    if helpers and checkpoint.report is not None:
        new = [name for name in checkpoint.report.newly_initialised if not name.startswith(IN_HEAD)]
        checkpoint.report = replace(checkpoint.report, newly_initialised=new)
    for name, helper in model.head.saved_models(model).items():
        if not any(helper is asked for asked in helpers):
            continue
        directory = f"{run}/{name}"
        if not has_file(directory, "config.json"):
            yield f"the {name} is new, with random weights: {run} is no finished run with one beside its model"
            continue
        saved = load_checkpoint(directory).model
        theirs, ours = dict(saved.named_parameters()), dict(helper.named_parameters())
        if {key: value.shape for key, value in theirs.items()} != {key: value.shape for key, value in ours.items()}:
            raise UserError(f"{directory}: is not the {name} of {run}/model: its tensors have other names or shapes")
        shared = {id(parameter) for parameter in model.encoder.parameters()}
        with torch.no_grad():
            for key, parameter in ours.items():
                if id(parameter) not in shared:
                    parameter.copy_(theirs[key])
        yield f"the {name} goes on with the weights in {directory}"
