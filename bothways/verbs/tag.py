"""`bothways tag M [TEXT…]`: entities, or a label for every word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bothways.files import to_json
from bothways.progress import CountProgress
from bothways.verbs.bulk import TableArguments, table_into_file
from bothways.verbs.flags import parse
from bothways.verbs.text_arguments import open_model_and_texts


def run_tag(arguments: Sequence[str]) -> None:
    """`bothways tag M [TEXT…]`."""
    options = parse(
        "tag",
        TableArguments,
        arguments,
        'Mark entities. Example: bothways tag entities "The router stopped on 3 May"',
    )
    if options.out is not None:
        return table_into_file("tag", options, arguments)
    options.refuse_parts()
    model, texts = open_model_and_texts("tag", options, options.precision, options.calibrate)
    with CountProgress("tag", len(texts)) as on_sequences:
        found: Any = model.tag(texts, on_sequences)
    for text, entities in zip(texts, found, strict=True):
        if options.json:
            print(to_json({"text": text, "entities": [entity.to_dict() for entity in entities]}))
            continue
        print(text)
        for entity in entities:
            print(f"    {entity.label}\t{entity.probability:.1%}\t{entity.start}–{entity.end}\t{entity.text}")
