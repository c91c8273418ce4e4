"""`bothways generate`, `score`, `suggest` and `chat`: ask a language model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bothways.data.tables import SUFFIXES, read_rows
from bothways.errors import UserError
from bothways.inference import language
from bothways.inference.chat import Chat
from bothways.inference.predictor import Predictor, load
from bothways.inference.sampling import GenerationOptions
from bothways.recipes import parse
from bothways.tasks.instruct import PAIRS
from bothways.verbs.asking import opened_single, singles
from bothways.verbs.texts import TextArguments

SHOWN = 5  # words told of each step


@dataclass(frozen=True)
class GenerateArguments(GenerationOptions, TextArguments):
    """texts: prompts.

    show_steps: each step's likeliest words with their probabilities. truncate: `left` lets a prompt that is too long
    for the position table lose its beginning.
    """

    show_steps: bool = False
    truncate: Literal["left"] | None = None


def generate(arguments: Sequence[str]) -> None:
    """`bothways generate M [TEXT…]`."""
    options = parse(
        "generate",
        GenerateArguments,
        arguments,
        'Go on with a text, a token at a time. Example: bothways generate run "Before my bed lies" --temperature 0.8',
    )
    model, prompts = opened_single(options)
    language.require_causal(model, "generate")
    if options.show_steps:
        for prompt in prompts:
            _show_steps(model, prompt, options)
    elif options.json or options.samples > 1 or len(prompts) > 1:
        ids = language.prompt_ids(model, prompts, options, options.truncate)
        for prompt, texts in zip(prompts, language.continuations(model, ids, options), strict=True):
            for number, text in enumerate(texts):
                line = {"prompt": prompt, **({"sample": number} if options.samples > 1 else {}), "text": text}
                print(json.dumps(line, ensure_ascii=False) if options.json else prompt + text)
    else:
        (prompt,) = prompts
        ids = language.prompt_ids(model, prompts, options, options.truncate)
        print(prompt, end="", flush=True)
        _stream(language.pieces_of(model.tokenizer, (step.tokens[0] for step in language.grow(model, ids, options))))


def _stream(pieces: Iterable[str]) -> None:
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _show_steps(model: Predictor, prompt: str, options: GenerateArguments) -> None:
    """A table: a row a step, what was chosen and what else was likely."""
    if options.samples > 1 or options.json:
        raise UserError("--show-steps: shows one sample as a table; leave out --samples and --json")
    table = Table("step", "so far", "chosen", *(f"{place + 1}." for place in range(SHOWN)))
    ids = language.prompt_ids(model, [prompt], options, options.truncate)
    text, token = prompt, model.tokenizer.token
    for number, step in enumerate(language.grow(model, ids, options), 1):
        likely = [f"{token(id)} {probability:.1%}" for id, probability in step.likeliest(SHOWN)[0]]
        chosen = f"{token(step.tokens[0])} {step.probabilities()[0]:.1%}"
        table.add_row(
            str(number), escape("…" + text[-30:] if len(text) > 30 else text), *map(escape, [chosen, *likely])
        )
        text += "".join(language.pieces_of(model.tokenizer, step.tokens))
    console = Console()
    console.print(table)
    console.print(text, markup=False, highlight=False)


@dataclass(frozen=True)
class ScoreArguments(TextArguments):
    """next: a word; tells P(word | text). top_k: how many of what may come next to show."""

    next: str | None = None
    top_k: int = 5


def score(arguments: Sequence[str]) -> None:
    """`bothways score M [TEXT…]`."""
    options = parse(
        "score",
        ScoreArguments,
        arguments,
        "Say how likely a text is, and what may follow it. Example: bothways score run "
        '"Shanghai is a city in" --next China',
    )
    if options.top_k < 1:
        raise UserError(f"--top-k {options.top_k}: expected at least 1")
    model, texts = opened_single(options)
    for text in texts:
        found = model.score(text, options.next, options.top_k)
        if options.json:
            print(json.dumps({"text": text, **asdict(found)}, ensure_ascii=False))
            continue
        print(text)
        kind = "log-probability" if model.config.is_decoder else "pseudo-log-likelihood, each word masked in turn,"
        print(f"    {kind} {found.log_probability:.3f}   perplexity {found.perplexity:.2f}")
        print("    " + "  ".join(f"{one.token} {one.probability:.2%}" for one in found.tokens))
        if found.next_probability is not None:
            pieces = "  ".join(f"{one.token} {one.probability:.3%}" for one in found.next)
            print(
                f"    P({options.next} | text) {found.next_probability:.4%}"
                + (f"  ({pieces})" if len(found.next) > 1 else "")
            )
        print("    next: " + "  ".join(f"{one.token} {one.probability:.1%}" for one in found.alternatives))


@dataclass(frozen=True)
class SuggestArguments(TextArguments):
    """top_k: how many words."""

    top_k: int = 3


def suggest(arguments: Sequence[str]) -> None:
    """`bothways suggest M [TEXT…]`."""
    options = parse(
        "suggest",
        SuggestArguments,
        arguments,
        'Suggest the next word, as a telephone does. Example: bothways suggest run "I am on my"',
    )
    model, texts = opened_single(options)
    for text in texts:
        words = model.suggest(text, options.top_k)
        if options.json:
            print(json.dumps({"text": text, "words": [asdict(one) for one in words]}, ensure_ascii=False))
        else:
            print(f"{text} … " + "   ".join(f"{one.word} {one.probability:.1%}" for one in words))


@dataclass(frozen=True)
class ChatArguments(GenerationOptions, TextArguments):
    """texts: each is answered by itself; without any, and without `--in`, the terminal's lines are one conversation, in
    which /reset forgets the turns and /stop ends it.

    system: a message that stands before the conversation.
    """

    system: str | None = None


def chat(arguments: Sequence[str]) -> None:
    """`bothways chat M [TEXT…]`."""
    options = parse(
        "chat",
        ChatArguments,
        arguments,
        'Talk with a model made by `finetune instruct`. Example: bothways chat helper "My router has no light"',
    )
    if options.texts or options.input:
        model = load(options.model, options.device)
        talk = Chat(model, options.system)
        texts = singles(options, {"text_column": _said_in(options.input, model)})
        for text in texts:
            reply = "".join(talk.reply(text, options))
            talk.reset()
            print(json.dumps({"text": text, "reply": reply}, ensure_ascii=False) if options.json else reply)
        return
    talk = Chat(load(options.model, options.device), options.system)
    if sys.stdin.isatty():
        print("/reset forgets the conversation, /stop or Ctrl-D ends it", file=sys.stderr)
    while (said := _next_line()) is not None:
        if said == "/reset":
            talk.reset()
            print("(forgotten)", file=sys.stderr)
        elif said:
            try:
                pieces = talk.reply(said, options)
                if options.json:
                    print(json.dumps({"text": said, "reply": "".join(pieces)}, ensure_ascii=False), flush=True)
                else:
                    _stream(pieces)
            except UserError as error:  # of one line; the conversation goes on
                print(f"bothways: {error}", file=sys.stderr)


def _said_in(table: str | None, model: Predictor) -> str | None:
    """The column of a table that holds what is said: the fine-tuning's, or one that its rows would have."""
    named: str | None = model.checkpoint.state.get("options", {}).get("prompt_column")
    if named or table is None or Path(table).suffix.lower() not in SUFFIXES:
        return named
    present = read_rows(table)[0].values
    return next((prompt for prompt, _ in PAIRS if prompt in present), None)


def _next_line() -> str | None:
    """What the user says next; None at the end."""
    if sys.stdin.isatty():
        print("> ", end="", flush=True)
    try:
        line = sys.stdin.readline()
    except UnicodeDecodeError as error:
        raise UserError(f"standard input: {error.reason}; write UTF-8") from error
    said = line.strip()
    return None if not line or said in ("/stop", "/exit", "/quit") else said
