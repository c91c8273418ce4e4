"""`bothways generate M [TEXT…]`: how a text goes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bothways.errors import UserError
from bothways.files import to_json
from bothways.inference.generation_options import GenerationOptions
from bothways.verbs.flags import parse
from bothways.verbs.printing import table_lines
from bothways.verbs.text_arguments import TextArguments, open_model_and_texts

if TYPE_CHECKING:
    from bothways.predictor import Predictor

ALTERNATIVES_SHOWN = 5  # likeliest pieces of each step, a column each


@dataclass(frozen=True)
class GenerateArguments(GenerationOptions, TextArguments):
    """texts: prompts.

    show_steps: each step's likeliest words with their probabilities. truncate: `left` lets a prompt that is too long
    for the position table lose its beginning.
    """

    show_steps: bool = False
    truncate: Literal["left"] | None = None


def run_generate(arguments: Sequence[str]) -> None:
    """`bothways generate M [TEXT…]`."""
    options = parse(
        "generate",
        GenerateArguments,
        arguments,
        'Go on with a text, a token at a time. Example: bothways generate run "Before my bed lies" --temperature 0.8',
    )
    from bothways.inference import language  # torch takes seconds, and --help needs none
    from bothways.inference.engine import complete

    model, prompts = open_model_and_texts("generate", options)
    language.require_causal(model, "generate")
    if options.show_steps:
        for prompt in prompts:
            _show_steps(model, prompt, options)
    elif options.json or options.samples > 1 or len(prompts) > 1:
        ids = language.prompt_ids(model, prompts, options, options.truncate)
        continuations = complete(language.ask_continuations(model, ids, options))
        for prompt, samples in zip(prompts, continuations, strict=True):
            for number, text in enumerate(sample.text for sample in samples):
                line = {"prompt": prompt, **({"sample": number} if options.samples > 1 else {}), "text": text}
                print(to_json(line, ensure_ascii=False) if options.json else prompt + text)
    else:
        print(prompts[0], end="", flush=True)
        print_as_made(language.stream_text(model, prompts[0], options, options.truncate))


def print_as_made(pieces: Iterable[str]) -> None:
    """Print the pieces of a text as they are made, and end the line."""
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _show_steps(model: Predictor, prompt: str, options: GenerateArguments) -> None:
    """A table: a row a step, what was chosen and what else was likely."""
    from bothways.inference import language

    if options.samples > 1 or options.json:
        raise UserError("--show-steps: shows one sample as a table; leave out --samples and --json")
    heads = ["step", "so far", "chosen", *(f"{place + 1}." for place in range(ALTERNATIVES_SHOWN))]
    rows = []
    ids = language.prompt_ids(model, [prompt], options, options.truncate)
    text, token = prompt, model.tokenizer.token
    made: list[int] = []
    for number, step in enumerate(language.generate_steps(model, ids, options), 1):
        likely = [f"{token(id)} {probability:.1%}" for id, probability in step.likeliest(ALTERNATIVES_SHOWN)[0]]
        chosen = f"{token(step.tokens[0])} {step.probabilities()[0]:.1%}"
        rows.append([str(number), "…" + text[-30:] if len(text) > 30 else text, chosen, *likely])
        made.append(step.tokens[0])
        text = prompt + "".join(language.text_pieces(model.tokenizer, made))
    print("\n".join(table_lines(heads, rows, least=heads[:3:-1])))
    print(text)
