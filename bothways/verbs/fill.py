"""`bothways fill M [TEXT…]`: what could stand at each [MASK]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bothways.files import to_json
from bothways.verbs.flags import parse
from bothways.verbs.text_arguments import TextArguments, open_model, shown_text


@dataclass(frozen=True)
class FillArguments(TextArguments):
    top_k: int = 5


def run_fill(arguments: Sequence[str]) -> None:
    """`bothways fill M [TEXT…]`."""
    options = parse(
        "fill",
        FillArguments,
        arguments,
        'Fill in masks. Example: bothways fill run "Returns [MASK] if the file exists."',
    )
    model, texts = open_model("fill", options)
    for text, masks in zip(texts, model.fill(texts, options.top_k), strict=True):
        if options.json:
            print(to_json({"text": text, "masks": [[fill.to_dict() for fill in fills] for fills in masks]}))
            continue
        print(shown_text(text))
        for fills in masks:
            print("    " + "  ".join(f"{fill.token} {fill.probability:.1%}" for fill in fills))
