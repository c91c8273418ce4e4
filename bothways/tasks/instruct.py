"""instruct: a causal model learns to reply, from conversations; the loss is on the replies alone.

A conversation is `[CLS] what the user says [SEP] the reply [SEP] what the user says [SEP] …`, and what a system message
says stands before the user's first words. `[SEP]` ends every turn, so that it is also where a reply ends. The same as a
Jinja template, `chat_template`, lies beside the model for `transformers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch

from bothways.data.encoded import Encoded
from bothways.data.tables import Row
from bothways.errors import UserError, command, option
from bothways.model.encoder import Encoder
from bothways.model.families import build_head
from bothways.model.heads import Head
from bothways.tasks.base import Task, options_from_json
from bothways.tasks.pretraining import NextTokenObjective
from bothways.text.lines import is_unicode
from bothways.text.tokenizer import Tokenizer

CHAT_TEMPLATE = (
    "{{ '[CLS]' }}{% for message in messages %}{{ message['content'] }}"
    "{{ ' ' if message['role'] == 'system' else '[SEP]' }}{% endfor %}"
)
PROMPT_AND_RESPONSE = (("prompt", "response"), ("question", "answer"), ("command", "result"))  # columns of an exchange
ROLES = ("user", "assistant")
BEFORE_REPLIES = "reply_rows"  # a sequence's target; a run's fingerprint has the name, so it stays as it was
Turn = tuple[str, str]  # role, content


def check_turns(messages: Any, place: str) -> list[Turn]:
    """Messages as turns: a system message or none, then user and assistant in turn.

    Raises UserError, naming the place and the message, for anything else.
    """
    if not isinstance(messages, list | tuple | np.ndarray) or not len(messages):
        raise UserError(f"{place}: messages is {str(messages)[:60]!r}, expected a list of {{role, content}}")
    turns: list[Turn] = []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise UserError(f"{place}: message {number} is {str(message)[:60]!r}, expected {{role, content}}")
        role, content = message["role"], message["content"]
        if not isinstance(content, str) or not content.strip() or not is_unicode(content):
            raise UserError(f"{place}: message {number} has the content {str(content)[:60]!a}, expected a text")
        after_system = number - 1 - bool(turns and turns[0][0] == "system")
        expected = ROLES[after_system % 2]
        if role != expected and not (number == 1 and role == "system"):
            raise UserError(f"{place}: message {number} has the role {role!r}, expected {expected!r}")
        turns.append((role, content))
    return turns


def conversation_ids(tokenizer: Tokenizer, turns: Sequence[Turn]) -> tuple[np.ndarray, np.ndarray]:
    """A conversation's ids from its `[CLS]` on, int64 `[T]`, and whether each belongs to a reply, bool `[T]`.

    The `[SEP]` that ends a reply belongs to it.
    """
    pieces = tokenizer.encode_batch([content for _, content in turns], special_tokens=False)
    ids, replied = [np.array([tokenizer.cls_id])], [np.zeros(1, dtype=bool)]
    for (role, _), content in zip(turns, pieces, strict=True):
        end = [] if role == "system" else [tokenizer.sep_id]
        ids += [content.input_ids, np.array(end, dtype=np.int64)]
        replied.append(np.full(len(content.input_ids) + len(end), role == "assistant"))
    return np.concatenate(ids), np.concatenate(replied)


@dataclass(frozen=True)
class ReplyScore:
    """How likely a model finds the replies of a conversation, each token behind the gold tokens before it.

    log_probability: natural logarithm, summed over `tokens`. tokens: of the replies. right: how many of them were the
    model's first guess.
    """

    log_probability: float
    tokens: int
    right: int


@dataclass(frozen=True)
class InstructOptions:
    """Columns of the table.

    messages_column: a list of {role, content}. prompt_column: what the user says, where a row is one exchange; by
    default what a row has of prompt/response, question/answer and command/result. response_column: the reply to it.
    """

    messages_column: str = "messages"
    prompt_column: str | None = None
    response_column: str | None = None


@dataclass(frozen=True)
class InstructTask(NextTokenObjective, Task):
    """Cross-entropy of the replies' tokens."""

    options: InstructOptions = InstructOptions()

    name: ClassVar[str] = "instruct"
    Options: ClassVar[type] = InstructOptions
    cut_at: ClassVar[str] = "beginning"
    example: ClassVar[Mapping[str, Any]] = {
        "question": "My router has no light. What can I do?",
        "answer": "Check that it is plugged in and switched on.",
    }
    next_command: ClassVar[str] = 'chat {model} "something to say"'

    @classmethod
    def make(cls, options: Any) -> InstructTask:
        if (options.prompt_column is None) != (options.response_column is None):
            raise UserError(f"{option('prompt_column')} and {option('response_column')}: give both or neither")
        return cls(options)

    def columns(self, labelled: bool = True) -> dict[str, str]:
        options = self.options
        if options.prompt_column is None or options.response_column is None:
            return {}  # each row says by its own columns what it is
        said = {options.prompt_column: "what is said to the model"}
        return {**said, **({options.response_column: "its reply"} if labelled else {})}

    def turns(self, row: Row) -> list[Turn]:
        """The row as a conversation. Raises UserError for columns that make none."""
        options = self.options
        pairs: tuple[tuple[str, str], ...] = PROMPT_AND_RESPONSE
        if options.prompt_column is not None and options.response_column is not None:
            pairs = ((options.prompt_column, options.response_column),)
        elif row.values.get(options.messages_column) is not None:
            return check_turns(row.values[options.messages_column], row.source)
        found = next((pair for pair in pairs if all(row.values.get(column) is not None for column in pair)), None)
        if found is None:
            wanted = ", ".join(f"{prompt}/{response}" for prompt, response in pairs)
            present = ", ".join(map(str, row.values)) or "none"
            raise UserError(f"{row.source}: neither {options.messages_column} nor {wanted}; columns present: {present}")
        prompt, response = found
        return [("user", row.text(prompt)), ("assistant", row.text(response))]

    def check(self, row: Row) -> None:
        turns = self.turns(row)
        if turns[-1][0] != "assistant":
            raise UserError(f"{row.source}: the last message has the role {turns[-1][0]!r}, expected 'assistant'")

    def kept_together(self, row: Row) -> tuple[str, ...]:
        """All that is said before the last reply."""
        return ("\n".join(content for _, content in self.turns(row)[:-1]),)

    def to_json(self) -> dict[str, Any]:
        return {"task": self.name, "options": asdict(self.options), "chat_template": CHAT_TEMPLATE}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        if state.get("task") != cls.name:
            raise UserError(f"this model does not reply; make one with {command('finetune', 'instruct')}")
        return cls(options_from_json(InstructOptions, state))

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Encoded]:
        """Targets `BEFORE_REPLIES`, the tokens behind which a token of a reply comes, and `next_tokens`, the ids of the
        replies' tokens, which are the gold labels. A conversation that is too long loses its beginning."""
        encoded = []
        for number, row in enumerate(rows):
            ids, replied = conversation_ids(tokenizer, self.turns(row))
            if not replied.any():
                raise UserError(f"{row.source}: no reply in it to learn or to measure; `chat` makes replies")
            cut = max(0, len(ids) - 1 - max_length)
            kept = np.r_[0, 1 + cut : len(ids)]
            ids, replied = ids[kept], replied[kept]
            targets = {BEFORE_REPLIES: np.flatnonzero(replied) - 1, "next_tokens": ids[replied]}
            read, nothing = ids[:-1], np.zeros(len(ids) - 1, dtype=np.int64)
            encoded.append(
                Encoded(read, nothing, nothing, np.zeros((len(read), 2), dtype=np.int64), targets, cut, number)
            )
        return encoded

    def add_targets(self, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
        return list(encoded)

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """lm_index `[R]`: the tokens behind which a token of a reply comes; next_tokens `[R]`: its id."""
        begins = np.cumsum([0, *(len(talk.input_ids) for talk in encoded[:-1])])
        tokens = [begin + talk.targets[BEFORE_REPLIES] for begin, talk in zip(begins, encoded, strict=True)]
        return {
            "lm_index": np.concatenate(tokens),
            "next_tokens": np.concatenate([talk.targets["next_tokens"] for talk in encoded]),
        }

    def head(self, encoder: Encoder) -> Head:
        if not encoder.config.is_decoder:
            raise UserError(
                "instruct: this model reads both ways (is_decoder false); a reply is made from left to right, by a "
                f"model pretrained with {option('objective', 'causal')}"
            )
        return build_head(encoder, "causal-LM")

    def split(self, scores: Any, encoded: Sequence[Encoded]) -> list[np.ndarray]:
        """For each sequence float32 `[R, 2]`: log-probability of the gold token, and whether it is the first guess."""
        gold = torch.from_numpy(np.concatenate([talk.targets["next_tokens"] for talk in encoded]))
        logs, right = scores.log_probabilities(gold.to(scores.hidden.device))
        columns = torch.stack([logs.float(), right.float()], -1).cpu()
        return [part.numpy() for part in columns.split([len(talk.targets["next_tokens"]) for talk in encoded])]

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> ReplyScore:
        (columns,) = scores
        return ReplyScore(float(columns[:, 0].sum()), len(columns), int(columns[:, 1].sum()))

    def metrics(self, predictions: Sequence[ReplyScore], rows: Sequence[Row]) -> dict[str, Any]:
        """Of the replies' tokens, each behind the gold tokens before it: mean log_likelihood, perplexity, accuracy."""
        tokens = max(1, sum(score.tokens for score in predictions))
        mean = sum(score.log_probability for score in predictions) / tokens
        right = sum(score.right for score in predictions)
        return {"log_likelihood": mean, "perplexity": math.exp(min(-mean, 700)), "token_accuracy": right / tokens}

    def describe(self, prediction: ReplyScore, row: Row, labelled: bool) -> dict[str, Any]:
        turns = self.turns(row)
        described: dict[str, Any] = {
            "text": turns[-2][1],
            "predicted": f"{prediction.right} of {prediction.tokens} tokens",
        }
        if labelled:
            error = -prediction.log_probability / max(1, prediction.tokens)
            described |= {"truth": turns[-1][1], "error": error}
        return described
