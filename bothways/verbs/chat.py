"""`bothways chat M [TEXT…]`: a conversation."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bothways.data.tables import is_labelled_table, read_rows
from bothways.errors import UserError
from bothways.files import to_json
from bothways.inference.generation_options import GenerationOptions
from bothways.progress import print_note
from bothways.verbs.flags import parse
from bothways.verbs.generate import print_as_made
from bothways.verbs.model_argument import load_model
from bothways.verbs.text_arguments import TextArguments, single_texts

if TYPE_CHECKING:
    from bothways.predictor import Predictor

COMMANDS = "/reset forgets the conversation, /stop or Ctrl-D ends it, /help says this; all else goes to the model"


@dataclass(frozen=True)
class ChatArguments(GenerationOptions, TextArguments):
    """texts: each is answered by itself; without any, and without `--in`, the terminal's lines are one conversation, in
    which /reset forgets the turns, /stop ends it and /help says so.

    system: a message that stands before the conversation.
    """

    system: str | None = None

    @staticmethod
    def least_words(given: Mapping[str, Any]) -> int:
        """A conversation needs no words."""
        return 0


def run_chat(arguments: Sequence[str]) -> None:
    """`bothways chat M [TEXT…]`."""
    options = parse(
        "chat",
        ChatArguments,
        arguments,
        'Talk with a model made by `finetune instruct`. Example: bothways chat helper "My router has no light"',
    )
    from bothways.inference.chat import Chat  # torch takes seconds, and --help needs none

    if options.texts or options.input:
        model = load_model("chat", options)
        talk = Chat(model, options.system)
        texts = single_texts(options, {"text_column": _said_in(options.input, model)})
        for text in texts:
            reply = "".join(talk.reply(text, options))
            talk.reset()
            print(to_json({"text": text, "reply": reply}, ensure_ascii=False) if options.json else reply)
        return
    talk = Chat(load_model("chat", options), options.system)
    if sys.stdin.isatty():
        print_note(COMMANDS)
    while (said := _next_line()) is not None:
        if said == "/reset":
            talk.reset()
            print_note("(forgotten)")
        elif said.startswith("/") and " " not in said:
            print_note(COMMANDS if said == "/help" else f"{said} is no command: {COMMANDS}")
        elif said:
            try:
                pieces = talk.reply(said, options)
                if options.json:
                    print(to_json({"text": said, "reply": "".join(pieces)}, ensure_ascii=False), flush=True)
                else:
                    print_as_made(pieces)
            except UserError as error:  # of one line; the conversation goes on
                print_note(f"bothways: {error}")


def _said_in(table: str | None, model: Predictor) -> str | None:
    """The column of a table that holds what is said: the fine-tuning's, or one that its rows would have."""
    from bothways.tasks.instruct import PROMPT_AND_RESPONSE

    named: str | None = model.checkpoint.metadata.get("options", {}).get("prompt_column")
    if named or table is None or not is_labelled_table(table):
        return named
    present = read_rows(table)[0].values
    return next((prompt for prompt, _ in PROMPT_AND_RESPONSE if prompt in present), None)


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
