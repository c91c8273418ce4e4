"""`bothways score M [TEXT…]`: how likely a text is, and which word comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bothways.files import to_json
from bothways.option_checks import require_at_least
from bothways.verbs.flags import parse
from bothways.verbs.text_arguments import TextArguments, open_model_and_texts


@dataclass(frozen=True)
class ScoreArguments(TextArguments):
    """next: a word; tells P(word | text). top_k: how many of what may come next to show."""

    next: str | None = None
    top_k: int = 5


def run_score(arguments: Sequence[str]) -> None:
    """`bothways score M [TEXT…]`."""
    options = parse(
        "score",
        ScoreArguments,
        arguments,
        "Say how likely a text is, and what may follow it. Example: bothways score run "
        '"Shanghai is a city in" --next China',
    )
    require_at_least(1, top_k=options.top_k)
    model, texts = open_model_and_texts("score", options)
    for text in texts:
        found = model.score(text, options.next, options.top_k)
        if options.json:
            print(to_json({"text": text, **found.to_dict()}, ensure_ascii=False))
            continue
        print(text)
        kind = "log-probability" if model.config.is_decoder else "pseudo-log-likelihood, each word masked in turn,"
        print(f"    {kind} {found.log_probability:.3f}   perplexity {found.perplexity:.2f}")
        print("    " + "  ".join(f"{piece.token} {piece.probability:.2%}" for piece in found.tokens))
        if found.next_probability is not None:
            pieces = "  ".join(f"{piece.token} {piece.probability:.3%}" for piece in found.next)
            print(
                f"    P({options.next} | text) {found.next_probability:.4%}"
                + (f"  ({pieces})" if len(found.next) > 1 else "")
            )
        print("    next: " + "  ".join(f"{piece.token} {piece.probability:.1%}" for piece in found.alternatives))
