"""A conversation with a model that `bothways finetune instruct` made, a turn at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bothways.errors import UserError, command, option, warn_truncated
from bothways.inference.generation_options import GenerationOptions
from bothways.inference.language import generate_steps, require_causal, text_pieces
from bothways.tasks.instruct import Turn, check_turns, conversation_ids

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel


class Chat:
    """A conversation, which remembers its turns.

    system: a message that stands before the user's first words. turns: what has been said already.
    Raises UserError for a model that was not fine-tuned for `instruct`.
    """

    def __init__(self, model: LoadedModel, system: str | None = None, turns: Sequence[Turn] = ()) -> None:
        require_causal(model, "chat")
        if model.checkpoint.metadata.get("task") != "instruct":
            raise UserError(
                f"{model.checkpoint.source}: chat needs a model fine-tuned on conversations "
                f"({command('finetune', 'instruct')}); `generate` goes on with a text"
            )
        self._model = model
        self._begin: list[Turn] = []
        if system:
            self._begin = check_turns([{"role": "system", "content": system}], option("system"))
        self.turns = [*self._begin, *turns]

    def reset(self) -> None:
        """Forget everything but the system message."""
        self.turns = list(self._begin)

    def reply(self, said: str, options: GenerationOptions) -> Iterator[str]:
        """The model's reply, piece by piece; when it is complete both turns are remembered.

        Where the conversation grows too long for the position table its oldest turns are left out of what is read, of
        which a `TruncationWarning` tells. Raises UserError for words that alone are too long.
        """
        if options.samples > 1:
            raise UserError(f"{option('samples', options.samples)}: a conversation goes on with one reply")
        turn = check_turns([{"role": "user", "content": said}], "chat")
        prompt = conversation_prompt(self._model, [*self.turns, *turn], options)
        pieces: list[str] = []
        steps = generate_steps(self._model, [prompt], options)
        for piece in text_pieces(self._model.tokenizer, (step.tokens[0] for step in steps)):
            # the blank before a first word belongs to running text, not to a reply
            pieces.append(piece if pieces else piece.lstrip())
            yield pieces[-1]
        self.turns += [*turn, ("assistant", "".join(pieces))]


def reply_to(model: LoadedModel, messages: str | Sequence[Mapping[str, str]], options: GenerationOptions) -> str:
    """The reply to a conversation, {role, content} each, the last of which is the user's; or to the user's words alone.

    Raises UserError for roles out of order, and as `Chat`.
    """
    turns, last = turns_of(messages)
    return "".join(Chat(model, turns=turns).reply(last, options))


def reply_prompt(
    model: LoadedModel, messages: str | Sequence[Mapping[str, str]], options: GenerationOptions
) -> np.ndarray:
    """The ids of a conversation up to where the reply to it begins, int64 `[T]`. Raises UserError as `reply_to`."""
    turns, last = turns_of(messages)
    return conversation_prompt(model, [*Chat(model, turns=turns).turns, ("user", last)], options)


def turns_of(messages: str | Sequence[Mapping[str, str]]) -> tuple[list[Turn], str]:
    """The turns before the user's last words, and these. Raises UserError for roles out of order."""
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    *turns, (role, last) = check_turns(said, "chat")
    if role != "user":
        raise UserError(f"chat: the last message has the role {role!r}, expected 'user'")
    return turns, last


def conversation_prompt(model: LoadedModel, turns: Sequence[Turn], options: GenerationOptions) -> np.ndarray:
    """The ids of a conversation up to where a reply begins, int64 `[T]`, without its oldest turns where it is too
    long."""
    table = model.config.max_sequence_length
    limit = table - min(options.max_tokens, table // 2)
    begin = [turn for turn in turns[:1] if turn[0] == "system"]
    rest = list(turns[len(begin) :])
    ids, _ = conversation_ids(model.tokenizer, [*begin, *rest])
    left_out = 0
    while len(ids) > limit and len(rest) > 1:
        rest, left_out = rest[2:], left_out + 2  # what the user said goes together with its reply
        ids, _ = conversation_ids(model.tokenizer, [*begin, *rest])
    if len(ids) > limit:
        raise UserError(
            f"what is said is {len(ids):,} tokens long; with {option('max_tokens', options.max_tokens)} the position "
            f"table of {table:,} rows leaves room for {limit:,}"
        )
    if left_out:
        message = f"the conversation is too long for the model: its oldest {left_out} turns are no longer read"
        warn_truncated(message)
    model.warn_of_unknown([ids])
    return ids
