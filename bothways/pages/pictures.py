"""Attention as a picture for a paper: every head of a layer, or of all layers, drawn by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bothways.errors import UserError
from bothways.pages.arrays import decompress_array

SUFFIXES = (".png", ".svg")
LABELLED = 24  # tokens that fit beside a matrix


def draw(data: dict[str, Any], path: Path, layer: int | None) -> None:
    """One row of matrices a layer, one matrix a head; row i of a matrix is where token i looks.

    Raises UserError where matplotlib is not installed, and for a layer that there is not.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f"pictures need matplotlib ({error}): pip install 'bothways[report]'") from error
    layers = data["model"]["layers"]
    if layer is not None and not 1 <= layer <= layers:
        raise UserError(f"--layer {layer}: the model has layers 1 to {layers}")
    chosen = range(layers) if layer is None else [layer - 1]
    tokens = [one["token"] for one in data["tokens"]]
    labelled = layer is not None and len(tokens) <= LABELLED
    shown, size = (tokens, 2.6) if labelled else ([], 1.1)
    heads = data["model"]["heads"]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bothways"}):
        figure = Figure(figsize=(heads * size, len(chosen) * size + 0.4), layout="constrained")
        panels = figure.subplots(len(chosen), heads, squeeze=False)
        for row, number in zip(panels, chosen, strict=True):
            for head, (panel, weights) in enumerate(
                zip(row, decompress_array(data["runs"][0]["weights"][number]), strict=True)
            ):
                panel.imshow(weights, cmap="Blues", vmin=0, vmax=max(0.05, float(weights.max())))
                panel.set_title(f"layer {number + 1}, head {head + 1}", fontsize=7)
                panel.set_xticks(range(len(shown)), shown, rotation=90, fontsize=6)
                panel.set_yticks(range(len(shown)), shown, fontsize=6)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {})
