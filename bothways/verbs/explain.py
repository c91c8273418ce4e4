"""`bothways explain`: pictures of a model on a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bothways.errors import UserError, as_shown
from bothways.files import require_file_writable
from bothways.mirrors import output_file
from bothways.outputs import require_new_file
from bothways.pages.explanation import is_explanation
from bothways.progress import waiting
from bothways.verbs.flags import parse
from bothways.verbs.model_argument import load_model
from bothways.verbs.options import ModelToAsk, Positional
from bothways.verbs.printing import size_in_words


@dataclass(frozen=True, kw_only=True)
class ExplainArguments:
    """A model, or a run, and a text for it.

    text: what the model is to read. pair: a second text. out: the page (.html), or a picture of attention (.png, .svg);
    an earlier one is replaced. overwrite: replace a file that is none of them.
    others: sentences to hold beside the text in the view of embeddings. word: a word to follow through the layers in
    each of them. anchors: words that it is compared with there. projection: how vectors come to a plane. layer: of a
    picture, from 1; by default all.
    """

    model: ModelToAsk = None
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
    with output_file(options.out, overwrite=options.overwrite) as out:
        _explain(options, out)


def _explain(options: ExplainArguments, out: Path) -> None:
    require_file_writable(out, (".html", ".png", ".svg"), "out")
    if out.exists() and not options.overwrite and not is_explanation(out):
        require_new_file(out, "out")
    if options.layer is not None and out.suffix == ".html":
        raise UserError(f"--layer {options.layer}: is for pictures; a page has all layers")
    if options.anchors and options.word is None:
        raise UserError("--anchors: needs --word, the word that is compared with them")
    from bothways.train.run import is_pretraining_run  # torch takes seconds, and --help needs none

    model = load_model("explain", options)
    text = options.text if options.pair is None else (options.text, options.pair)
    beside = {"others": options.others, "word": options.word, "anchors": options.anchors}
    doing = "explain: umap takes some half a minute …" if options.projection == "umap" else "explain: looking …"
    with waiting(doing):
        explanation = model.explain(text, **beside, projection=options.projection)
    run = Path(options.model or model.checkpoint.source)
    if options.pair is None and is_pretraining_run(run) and out.suffix == ".html":
        from bothways.explain.checkpoint_series import checkpoint_view

        checkpoints, notes = checkpoint_view(model, run, options.text)
        notes = [*explanation.data["notes"], *notes]
        explanation = replace(explanation, data={**explanation.data, "checkpoints": checkpoints, "notes": notes})
    explanation.write(out, options.layer)
    opens = ", opens in any browser" if out.suffix == ".html" else ""
    print(f"{as_shown(out)}: {size_in_words(out.stat().st_size)}{opens}")
