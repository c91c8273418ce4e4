"""`bothways suggest M [TEXT…]`: the next word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bothways.files import to_json
from bothways.verbs.flags import parse
from bothways.verbs.text_arguments import TextArguments, open_model_and_texts


@dataclass(frozen=True)
class SuggestArguments(TextArguments):
    """top_k: how many words."""

    top_k: int = 3


def run_suggest(arguments: Sequence[str]) -> None:
    """`bothways suggest M [TEXT…]`."""
    options = parse(
        "suggest",
        SuggestArguments,
        arguments,
        'Suggest the next word, as a telephone does. Example: bothways suggest run "I am on my"',
    )
    model, texts = open_model_and_texts("suggest", options)
    for text in texts:
        suggestions = model.suggest(text, options.top_k)
        if options.json:
            print(
                to_json(
                    {"text": text, "words": [suggestion.to_dict() for suggestion in suggestions]}, ensure_ascii=False
                )
            )
        else:
            words = (f"{suggestion.word} {suggestion.probability:.1%}" for suggestion in suggestions)
            print(f"{text} … " + "   ".join(words))
