"""A loaded model: a checkpoint on a device, in a precision, and the texts that it can read.

What it can be asked is in the files beside this one, each question a function of a `LoadedModel`.

Shapes: T_i tokens of text i.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bothways.checkpoint.hugging_face import Checkpoint, LoadReport
from bothways.checkpoint.shipped import shipped_hint
from bothways.data.encoded import Encoded, join_segments
from bothways.data.tables import Row
from bothways.data.unknown_tokens import UnknownTokens, count_unknown, count_unknown_in
from bothways.errors import PrecisionWarning, UserError, command, option, warn_at_caller, warn_truncated, warn_unknown
from bothways.hardware import choose_device, memory_errors
from bothways.inference import engine
from bothways.inference.agreement import LEAST_COSINE, Agreement, file_texts, measure_agreement, packaged_texts
from bothways.inference.prepared import prepare_for_generation, prepare_model
from bothways.inference.texts import Asked, Text, TextColumns, Texts, asked_texts
from bothways.model.config import SIZES, EncoderConfig
from bothways.model.families import FAMILIES
from bothways.model.heads import Ability, Head, Model
from bothways.option_checks import in_short
from bothways.precision import InferencePrecision, choose_inference_precision
from bothways.progress import OnProgress
from bothways.remote_files import local_file
from bothways.tasks import TASKS
from bothways.tasks.base import Task, require_segment_types, shortened_list
from bothways.text.tokenizer import Tokenizer
from bothways.text.word_pieces import word_pieces


def source_of(model: object) -> str | Path:
    """Where a model came from that is loaded already; of a path or a hub id, itself. Raises UserError for others."""
    if isinstance(model, LoadedModel):
        return model.checkpoint.source
    if not isinstance(model, str | Path) or not str(model).strip():
        raise UserError(
            f"{option('model')}: expected a model's directory, a hub id or what bothways.load gives, "
            f"found {in_short(model)}"
        )
    return model


class LoadedModel:
    """One model, ready to be run. Sequences are never padded, and none changes another's result.

    device: auto, cpu, cuda or cuda:N. precision: of predictions, vectors and generation; `auto` is bfloat16 where the
    hardware multiplies it, else float32. calibrate: a file of texts to measure int8 on, in place of packaged ones.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "auto",
        precision: InferencePrecision = "auto",
        calibrate: str | Path | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self._asked = device, precision, calibrate
        self.device = choose_device(device)
        self.precision = choose_inference_precision(precision, self.device)
        if calibrate is not None and precision not in ("int8", "fastest"):
            cure = option("precision", "int8")
            raise UserError(f"{option('calibrate', calibrate)}: only int8 is measured; with {cure}, or fastest")
        with memory_errors(self.device, "the model"):
            self.model = checkpoint.model.to(self.device).eval()
        self.calibration = (
            None if calibrate is None else file_texts(local_file(calibrate), self._text_columns(pairs=True))
        )
        self.agreement: Agreement | None = None  # with float32, measured before int8 is first used

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
        """The model as predictions and vectors are made with it: in this object's precision.

        int8 is measured first, and where it is too far from float32 another precision is used, with a warning.
        """
        prepared = prepare_model(self.model, self.precision)
        if self.precision != "int8":
            return prepared
        encoded = join_segments(self.tokenizer, self.calibration or packaged_texts(), self.sequence_length)
        self.agreement = measure_agreement(prepare_model(self.model), prepared, encoded, self.device)
        if self.agreement.is_enough:
            return prepared
        self.precision = choose_inference_precision("auto", self.device)
        why = f"{option('precision', 'int8')}: {self.agreement}, where {LEAST_COSINE} is asked for"
        warn_at_caller(f"{self.checkpoint.source}: {why}; {self.precision} is used", PrecisionWarning)
        return prepare_model(self.model, self.precision)

    @functools.cached_property
    def in_float32(self) -> Model:
        """The model as masks are filled and texts scored with it: in float32 in every precision."""
        return self.for_prediction if self.precision == "float32" else prepare_model(self.model)

    @functools.cached_property
    def for_generation(self) -> Model:
        """The model as generation runs it: in this object's precision."""
        return prepare_for_generation(self.model, self.precision)

    @functools.cached_property
    def word_pieces(self) -> torch.Tensor:
        """As `text.word_pieces` finds them, `[2, V]`: looked for once, as a vocabulary has tens of thousands."""
        return torch.from_numpy(word_pieces(self.tokenizer, self.config.vocab_size)).to(self.device)

    @functools.cached_property
    def _needed_heads(self) -> dict[type[Task], type[Head]]:
        """The class of the head that a task needs, of tasks that were asked for: making one takes a millisecond."""
        return {}

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

    @property
    def reads_pairs(self) -> bool | None:
        """Whether the model was fine-tuned on pairs; None where that is not known, as of one that was made elsewhere or
        that was only pretrained."""
        metadata = self.checkpoint.metadata
        if metadata.get("task") not in TASKS or "provenance" not in metadata:
            return None
        return self.task().reads_pairs

    def task(self, name: str | None = None, columns: Mapping[str, str] | None = None) -> Task:
        """What the model was fine-tuned for. columns: those that are called otherwise than there, by option.

        Raises UserError where that is not `name`, or nothing, and for a column of pairs that the model does not read.
        """
        if columns is not None:
            if "pair_column" in columns and self.reads_pairs is False:
                self._require_pairs(f"leave out {option('pair_column')}")
            return self.task(name).with_columns(columns)
        trained = self.checkpoint.metadata.get("task")
        if trained not in TASKS or (name is not None and trained != name):
            was = f"was made for {trained}" if trained in TASKS else f"has {type(self.model.head).__name__} and no task"
            wanted, cure = name or "what is asked", command("finetune", name or "TASK")
            raise UserError(
                f"{self.checkpoint.source}: {wanted} needs a model fine-tuned for it ({cure}); this one {was}"
                f"{shipped_hint(name or '')}"
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
        needed = self._needed_heads.get(type(task))
        if needed is None:
            with torch.device("meta"):
                needed = self._needed_heads[type(task)] = type(task.head(self.model.encoder))
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
        room for. Warns of texts that the vocabulary cannot read."""
        encoded = join_segments(self.tokenizer, texts, max_length=1 << 30)
        limit = self.config.max_sequence_length
        for sequence, text in zip(encoded, texts, strict=True):
            if len(sequence.input_ids) > limit:
                begin = text if isinstance(text, str) else text[0]
                raise UserError(
                    f"{begin[:40]!r}… is {len(sequence.input_ids)} tokens long; the position table has {limit} rows"
                )
        self._say_unknown(count_unknown_in(self.tokenizer, encoded))
        return encoded

    def asked(self, texts: Texts, verb: str, pairs: bool = True) -> Asked:
        """What a verb is asked, one text or pair or many. pairs: whether it reads pairs.

        Raises UserError for what is no text, and for pairs where the verb or the model does not read any.
        """
        asked = asked_texts(texts, None if isinstance(texts, str | tuple | list) else self._text_columns(pairs))
        pair = next((text for text in asked.texts if isinstance(text, tuple)), None)
        if pair is not None and not pairs:
            raise UserError(
                f"{verb} reads single texts, found a pair; give each text by itself, in Python {_as_list(pair)}"
            )
        if pair is not None:
            self._require_pairs(f"give each text by itself, in Python {_as_list(pair)}")
        return asked

    def _text_columns(self, pairs: bool) -> TextColumns:
        """The columns by which a table of texts, or of pairs, is read."""
        options = self.checkpoint.metadata.get("options", {})
        second = options.get("pair_column") if pairs and self.reads_pairs else None
        return TextColumns(options.get("text_column") or "text", second)

    def _require_pairs(self, cure: str) -> None:
        """Raises UserError for a model that does not read pairs, or never saw any in its fine-tuning."""
        if self.reads_pairs is False:
            raise UserError(f"{self.checkpoint.source} was fine-tuned on single texts and never saw a pair; {cure}")
        require_segment_types(self.config, f"a pair is given, and {self.checkpoint.source}")

    def run_in_chunks(
        self,
        items: Sequence[Any],
        encode: Callable[[Sequence[Any]], list[Encoded]],
        answer: Callable[[Sequence[Any], list[Encoded], OnProgress], engine.Question[list[Any]]],
        on_progress: OnProgress,
    ) -> engine.Question[list[Any]]:
        """What `answer` makes of the items, in order, a chunk at a time. Warns of items that were cut short, and of
        those that the vocabulary cannot read.

        encode: items as sequences. answer: (items, their sequences, on_progress) → the question for a result of each.
        """
        results: list[Any] = []
        done = cut = 0
        unknown = UnknownTokens()
        for chunk, encoded in engine.encode_in_chunks(items, encode):
            before = done
            results += yield from answer(
                chunk,
                encoded,
                lambda sequences: on_progress(before + sequences),  # noqa: B023
            )
            done += len(encoded)
            cut += engine.truncated_rows(encoded)
            unknown += count_unknown_in(self.tokenizer, encoded)
        self._say_unknown(unknown)
        if cut:
            number = f"{cut:,} of {len(items):,} texts"
            message = f"{number} are longer than {self.sequence_length} tokens and were cut short"
            warn_truncated(message)
        return results

    def warn_of_unknown(self, ids: Sequence[np.ndarray]) -> None:
        """Warns of texts that the vocabulary cannot read. ids: int `[T]` of each text."""
        self._say_unknown(count_unknown(self.tokenizer, ids))

    def _say_unknown(self, unknown: UnknownTokens) -> None:
        if (message := unknown.sentence()) is not None:
            warn_unknown(message)

    def require_head(self, ability: Ability, verb: str) -> None:
        """Raises UserError for a model whose head cannot do this, or was not in its file."""
        head = self.model.head
        if ability not in head.abilities:
            trained = self.checkpoint.metadata.get("task")
            has = f"was made for {trained}" if trained in TASKS else f"has {type(head).__name__}"
            raise UserError(
                f"{self.checkpoint.source}: {verb} needs a {ability} head; this model {has}{shipped_hint(verb)}"
            )
        self.require_trained(verb)

    def require_trained(self, verb: str) -> None:
        """Raises UserError where a part of the model was not in its file."""
        report = self.report
        if report and report.newly_initialised:
            raise UserError(f"{self.checkpoint.source}: {verb} needs trained weights: {report.sentence()}")


def describe_model(model: LoadedModel) -> dict[str, str]:
    """What a model is, in a few words by name: model, family, size, task, device, precision."""
    config, metadata = model.config, model.checkpoint.metadata
    sizes = {name: config.sizes(*size) for name, size in SIZES.items()}
    named = next((f"{name}, " for name, size in sizes.items() if _has_shape(config, size)), "")
    layers = f"{named}{config.num_hidden_layers} layers of {config.hidden_size}"
    parameters = sum(parameter.numel() for parameter in model.model.parameters()) / 1e6
    labels = f" ({shortened_list(model.labels)})" if model.labels and "task" in metadata else ""
    reads = "left to right" if config.is_decoder else "both ways"
    return {
        "model": model.checkpoint.source,
        "family": f"{FAMILIES[config.model_type].title}, {reads}",
        "size": f"{layers}, {parameters:,.1f} M parameters",
        "task": f"{metadata['task']}{labels}" if "task" in metadata else "pretrained",
        "device": str(model.device),
        "precision": model.precision,
    }


def precision_in_words(model: LoadedModel) -> str:
    """The precision of a model that has been run, and, where int8 was to be measured, what came of it."""
    if model.agreement is not None:
        return f"{model.precision}: {model.agreement}"
    return model.precision if model.calibration is None else f"{model.precision}: as this processor has no faster int8"


def _has_shape(config: EncoderConfig, size: Mapping[str, Any]) -> bool:
    """Whether a model is of a named size of its family, `EncoderConfig.sizes`."""
    return all(getattr(config, name) == value for name, value in size.items())


def _as_list(pair: tuple[str, ...]) -> str:
    return f"[{', '.join(repr(text if len(text) < 20 else text[:20] + '…') for text in pair)}]"
