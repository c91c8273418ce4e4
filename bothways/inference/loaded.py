"""A loaded model: a checkpoint on a device, in a precision, and the texts that it can read.

What it can be asked is in the files beside this one, each question a function of a `LoadedModel`.

Shapes: T_i tokens of text i.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from bothways.checkpoint.hugging_face import Checkpoint, LoadReport
from bothways.data.encoded import Encoded, join_segments
from bothways.data.tables import Row
from bothways.errors import UserError, warn_truncated
from bothways.hardware import choose_device
from bothways.inference import engine
from bothways.inference.prepared import prepare_for_generation, prepare_model
from bothways.inference.texts import Text, listed_texts_and_pairs
from bothways.model.config import EncoderConfig
from bothways.model.heads import Ability, Model
from bothways.precision import InferencePrecision, choose_inference_precision
from bothways.progress import OnProgress
from bothways.tasks import TASKS
from bothways.tasks.base import Task, require_segment_types
from bothways.text.lines import is_unicode
from bothways.text.tokenizer import Tokenizer


class LoadedModel:
    """One model, ready to be run. Sequences are never padded, and none changes another's result.

    device: auto, cpu, cuda or cuda:N. precision: of predictions and vectors; `auto` is bfloat16 where the hardware
    multiplies it, else float32.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", precision: InferencePrecision = "auto") -> None:
        self.checkpoint = checkpoint
        self._asked = device, precision
        self.device = choose_device(device)
        self.precision = choose_inference_precision(precision, self.device)
        self.model = checkpoint.model.to(self.device).eval()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies are of the checkpoint, on the CPU: what was prepared from it points into this process's
        memory and this machine's layouts, so it is made anew where it is first needed."""
        kept = self.checkpoint
        if self.device.type != "cpu":
            kept = replace(kept, model=copy.deepcopy(kept.model).cpu())
        return type(self), (kept, *self._asked)

    @property
    def config(self) -> EncoderConfig:
        return self.checkpoint.config

    @property
    def tokenizer(self) -> Tokenizer:
        return self.checkpoint.tokenizer

    @functools.cached_property
    def for_prediction(self) -> Model:
        """The model as predictions and vectors are made with it: in this object's precision."""
        return prepare_model(self.model, self.precision)

    @functools.cached_property
    def for_generation(self) -> Model:
        """The model as generation runs it: in float32."""
        return prepare_for_generation(self.model)

    @property
    def report(self) -> LoadReport | None:
        """What became of every tensor in the file."""
        return self.checkpoint.report

    @property
    def labels(self) -> list[str]:
        """The labels of a classifier or tagger, in the order of its scores; empty for other models."""
        return list(self.checkpoint.metadata.get("labels", []))

    @property
    def sequence_length(self) -> int:
        """The tokens a text may have: what the model was fine-tuned with, or the size of its position table."""
        return int(self.checkpoint.metadata.get("sequence_length", self.config.max_sequence_length))

    def task(self, name: str | None = None) -> Task:
        """What the model was fine-tuned for. Raises UserError where that is not `name`, or nothing."""
        trained = self.checkpoint.metadata.get("task")
        if trained not in TASKS or (name is not None and trained != name):
            was = f"was made for {trained}" if trained in TASKS else f"has {type(self.model.head).__name__} and no task"
            wanted = name or "what is asked"
            raise UserError(
                f"{self.checkpoint.source}: {wanted} needs a model fine-tuned for it (`bothways finetune "
                f"{name or 'TASK'}`); this one {was}"
            )
        self.require_trained(trained)
        try:
            task = TASKS[trained].from_json(self.checkpoint.metadata)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{self.checkpoint.source}: bothways.json: what it says of {trained} is damaged: {error}"
            ) from error
        with torch.device("meta"):
            needed = type(task.head(self.model.encoder))
        if type(self.model.head) is not needed:
            raise UserError(
                f"{self.checkpoint.source}: bothways.json says {trained}, which needs a {needed.__name__}; "
                f"architectures in config.json gives a {type(self.model.head).__name__}"
            )
        return task

    def encode_rows(self, task: Task, rows: Sequence[Row]) -> list[Encoded]:
        """Rows as the sequences that this model reads. Raises UserError for pairs where it has one segment type."""
        encoded = task.encode(rows, self.tokenizer, self.sequence_length)
        if any(sequence.token_type_ids.any() for sequence in encoded):
            require_segment_types(self.config, self.checkpoint.source)
        return encoded

    def encode_whole_texts(self, texts: Sequence[Text]) -> list[Encoded]:
        """Texts and pairs as sequences, none of them cut. Raises UserError for a text that the position table has no
        room for."""
        encoded = join_segments(self.tokenizer, texts, max_length=1 << 30)
        limit = self.config.max_sequence_length
        for sequence, text in zip(encoded, texts, strict=True):
            if len(sequence.input_ids) > limit:
                begin = text if isinstance(text, str) else text[0]
                raise UserError(
                    f"{begin[:40]!r}… is {len(sequence.input_ids)} tokens long; the position table has {limit} rows"
                )
        return encoded

    def checked_texts(self, texts: Text | Sequence[Text]) -> list[Text]:
        """The texts as a list. Raises UserError for what is no text, and for pairs where the model has one segment
        type."""
        listed = listed_texts_and_pairs(texts)
        for number, text in enumerate(listed, 1):
            segments = text if isinstance(text, tuple) and len(text) == 2 else (text,)
            for segment in segments:
                if not isinstance(segment, str) or not is_unicode(segment):
                    raise UserError(f"text {number}: expected a string or a pair of strings, found {text!a}")
            if len(segments) == 2:
                require_segment_types(self.config, f"text {number} is a pair, and {self.checkpoint.source}")
        return listed

    def run_in_chunks(
        self,
        items: Sequence[Any],
        encode: Callable[[Sequence[Any]], list[Encoded]],
        answer: Callable[[Sequence[Any], list[Encoded], OnProgress], list[Any]],
        on_progress: OnProgress,
    ) -> list[Any]:
        """What `answer` makes of the items, in order, a chunk at a time. Warns of items that were cut short.

        encode: items as sequences. answer: (items, their sequences, on_progress) → a result for each item.
        """
        results: list[Any] = []
        done = cut = 0
        for chunk, encoded in engine.encode_in_chunks(items, encode):
            before = done
            results += answer(chunk, encoded, lambda sequences: on_progress(before + sequences))  # noqa: B023
            done += len(encoded)
            cut += engine.truncated_rows(encoded)
        if cut:
            number = f"{cut:,} of {len(items):,} texts"
            message = f"{number} are longer than {self.sequence_length} tokens and were cut short"
            warn_truncated(message)
        return results

    def require_head(self, ability: Ability, verb: str) -> None:
        """Raises UserError for a model whose head cannot do this, or was not in its file."""
        head = self.model.head
        if ability not in head.abilities:
            raise UserError(
                f"{self.checkpoint.source}: {verb} needs a {ability} head; this model has {type(head).__name__}"
            )
        self.require_trained(verb)

    def require_trained(self, verb: str) -> None:
        """Raises UserError where a part of the model was not in its file."""
        report = self.report
        if report and report.newly_initialised:
            raise UserError(f"{self.checkpoint.source}: {verb} needs trained weights: {report.sentence()}")
