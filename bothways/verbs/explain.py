"""`bothways explain`: pictures of a model on a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from bothways.errors import UserError
from bothways.files import require_file_writable
from bothways.outputs import require_new_file
from bothways.pages.explanation import is_explanation
from bothways.predictor import load
from bothways.train.run import is_pretraining_run
from bothways.verbs.flags import parse


@dataclass(frozen=True)
class ExplainArguments:
    """A model, or a run, and a text for it.

    text: what the model is to read. pair: a second text. out: the page (.html), or a picture of attention (.png, .svg);
    an earlier one is replaced. overwrite: replace a file that is none of them.
    others: sentences to hold beside the text in the view of embeddings. word: a word to follow through the layers in
    each of them. anchors: words that it is compared with there. projection: how vectors come to a plane. layer: of a
    picture, from 1; by default all.
    """

    model: Positional[str]
    text: Positional[str]
    pair: str | None = None
    out: str = "explanation.html"
    overwrite: bool = False
    others: tuple[str, ...] = ()
    word: str | None = None
    anchors: tuple[str, ...] = ()
    projection: Literal["pca", "umap"] = "pca"
    layer: int | None = None
    device: str = "auto"


def run_explain(arguments: Sequence[str]) -> None:
    """`bothways explain M TEXT`."""
    options = parse(
        "explain",
        ExplainArguments,
        arguments,
        'Look inside a model: attention, embeddings, positions, predictions. Example: bothways explain run "Please buy '
        'an apple and an orange" --others "Apple unveiled the new phone" --word apple --anchors fruit company',
    )
    out = Path(options.out)
    require_file_writable(out, (".html", ".png", ".svg"), "out")
    if out.exists() and not options.overwrite and not is_explanation(out):
        require_new_file(out, "out")
    if options.layer is not None and out.suffix == ".html":
        raise UserError(f"--layer {options.layer}: is for pictures; a page has all layers")
    if options.anchors and options.word is None:
        raise UserError("--anchors: needs --word, the word that is compared with them")
    model = load(options.model, options.device)
    text = options.text if options.pair is None else (options.text, options.pair)
    beside = {"others": options.others, "word": options.word, "anchors": options.anchors}
    explanation = model.explain(text, **beside, projection=options.projection)
    run = Path(options.model)
    if options.pair is None and is_pretraining_run(run) and out.suffix == ".html":
        from bothways.explain.checkpoint_series import checkpoint_view

        checkpoints, notes = checkpoint_view(model, run, options.text)
        notes = [*explanation.data["notes"], *notes]
        explanation = replace(explanation, data={**explanation.data, "checkpoints": checkpoints, "notes": notes})
    explanation.write(out, options.layer)
    print(f"{out}: {out.stat().st_size / 1e6:,.1f} MB" + (", opens in any browser" if out.suffix == ".html" else ""))
