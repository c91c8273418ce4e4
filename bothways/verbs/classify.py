"""`bothways classify M [TEXT…]`: the label of texts."""

from __future__ import annotations

from collections.abc import Sequence

from bothways.files import to_json
from bothways.progress import CountProgress
from bothways.verbs.bulk import TableArguments, table_into_file
from bothways.verbs.flags import parse
from bothways.verbs.text_arguments import open_model, shown_text


def run_classify(arguments: Sequence[str]) -> None:
    """`bothways classify M [TEXT…]`."""
    options = parse(
        "classify",
        TableArguments,
        arguments,
        'Give texts their label. Example: bothways classify tickets "No light on my router"',
    )
    if options.out is not None:
        return table_into_file("classify", options, arguments)
    options.refuse_parts()
    model, texts = open_model("classify", options, options.precision, options.calibrate)
    with CountProgress("classify", len(texts)) as on_sequences:
        results = model.classify(texts, on_sequences)
    from bothways.tasks.classifications import Classification, Regression  # torch takes seconds, and --help needs none

    for text, result in zip(texts, results, strict=True):
        if options.json:
            print(to_json({"text": text, **result.to_dict()}))
        elif isinstance(result, Classification):
            print(f"{result.label}\t{result.probability:.1%}\t{shown_text(text)}")
        elif isinstance(result, Regression):
            print(f"{result.value:.3f}\t{shown_text(text)}")
        else:
            given = ", ".join(f"{label} {result.scores[label]:.1%}" for label in result.labels)
            print(f"{given or 'no label'}\t{shown_text(text)}")
