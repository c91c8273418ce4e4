"""Attention as a picture for a paper: every head of a layer, or of all layers, drawn by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bothways.errors import UserError, install_command, option
from bothways.pages.arrays import decompress_array

PICTURE_SUFFIXES = (".png", ".svg")
GENERATOR = "Bothways explain"  # what a page or a picture says of its origin
METADATA = {".png": {"Software": GENERATOR}, ".svg": {"Creator": GENERATOR, "Date": None}}
MAX_LABELLED_TOKENS = 24  # names of 6 points that fit beside a matrix of 2.6 inches


def draw_attention(data: dict[str, Any], path: Path, layer: int | None) -> None:
    """A picture of one row of matrices a layer, one matrix a head, is written; row i of a matrix is where token i
    looks.

    data: of `explain.page_data.page_data`. layer: counted from 1; None for all. Raises UserError where matplotlib is
    not installed, and for a layer that the model does not have.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f"pictures need matplotlib ({error}): {install_command('report')}") from error
    num_layers, num_heads = data["model"]["layers"], data["model"]["heads"]
    if layer is not None and not 1 <= layer <= num_layers:
        raise UserError(f"{option('layer', layer)}: the model has layers 1 to {num_layers}")
    layers = range(num_layers) if layer is None else [layer - 1]
    tokens = [token["token"] for token in data["tokens"]]
    with_names = layer is not None and len(tokens) <= MAX_LABELLED_TOKENS
    names, inches = (tokens, 2.6) if with_names else ([], 1.1)
    weights = data["runs"][0]["weights"]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bothways"}):
        figure = Figure(figsize=(num_heads * inches, len(layers) * inches + 0.4), layout="constrained")
        panels = figure.subplots(len(layers), num_heads, squeeze=False)
        for panel_row, index in zip(panels, layers, strict=True):
            matrices = zip(panel_row, decompress_array(weights[index]), strict=True)
            for head, (panel, matrix) in enumerate(matrices, 1):
                panel.imshow(matrix, cmap="Blues", vmin=0, vmax=max(0.05, float(matrix.max())))
                panel.set_title(f"layer {index + 1}, head {head}", fontsize=7)
                panel.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
                panel.set_yticks(range(len(names)), names, fontsize=6)
        figure.savefig(path, dpi=150, metadata=METADATA[path.suffix])
