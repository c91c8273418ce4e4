"""What came before encoders, trained beside one on the same rows or the same text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from signal import Signals
from typing import Any, Generic, Literal, TypeVar, Unpack, overload

import numpy as np

from bothways.baselines.results import SAMPLE_TOKENS, ClassifierResult, LanguageModelResult, TrainingCost
from bothways.data.store import TokenStore
from bothways.data.tables import Row
from bothways.errors import UserError, closest, option
from bothways.inference.loaded import LoadedModel
from bothways.model.families import FAMILIES
from bothways.option_checks import options_from, require_path, require_type
from bothways.predictor import Predictor, load
from bothways.progress import ProgressLine
from bothways.remote_files import local_file
from bothways.tasks.classify import ClassifyTask
from bothways.tasks.classify_options import ClassifyOptions
from bothways.text.lines import is_unicode
from bothways.text.tokenizer import Tokenizer
from bothways.token_budget import UNLIMITED
from bothways.train.evaluate import Table
from bothways.train.finetune import finetune, make_task, read_rows_to_learn
from bothways.train.finetune_options import FinetuneOptions
from bothways.train.held_out import evaluate_store
from bothways.train.keywords import FinetuneKeywords, PretrainKeywords
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions

PROMPT_TOKENS = 4  # of a held-out document, which the samples go on from
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Comparison(Generic[_Result]):
    """What each model did. results: the transformer last; empty where its training was interrupted. held_out: how many
    rows, or tokens, they were measured on. prompt: what samples go on from. interrupted: the signal, or None."""

    results: list[_Result]
    held_out: int
    prompt: str = ""
    interrupted: Signals | None = None


@overload
def compare(
    what: Literal["classify"],
    model: str | Path | LoadedModel,
    train: Table,
    eval: Table | float,
    out: str | Path,
    options: FinetuneOptions | Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    **keywords: Unpack[FinetuneKeywords],
) -> Comparison[ClassifierResult]: ...


@overload
def compare(
    what: Literal["lm"],
    store: str | Path | TokenStore,
    out: str | Path,
    options: PretrainOptions | Mapping[str, Any] | None = None,
    *,
    order: int = 3,
    prompt: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **keywords: Unpack[PretrainKeywords],
) -> Comparison[LanguageModelResult]: ...


def compare(what: Any, *arguments: Any, **keywords: Any) -> Any:
    """Train a majority vote, a perceptron, word2vec and an encoder on the same rows (`classify`), or n-grams, a
    feed-forward network and a transformer on the same text (`lm`), and measure all of them on what is held out.

    model, train, eval, out, options: as `finetune`; store, out, options: as `pretrain`, the objective `causal`. out
    keeps the transformer. order: of the n-grams, from 2. prompt: what samples go on from, by default the beginning of a
    held-out document. overwrite: begin anew where out holds another run. quiet: nothing on the screen.
    Raises UserError as they do, and where the packages of the extra `baselines` are not installed.
    """
    kinds = {"classify": _compare_classifiers, "lm": _compare_language_models}
    if not isinstance(what, str) or what not in kinds:
        raise UserError(f"compare: unknown {what!r}{closest(str(what), kinds)}; accepted: {', '.join(kinds)}")
    return kinds[what](*arguments, **keywords)  # type: ignore[operator]


def _compare_classifiers(
    model: str | Path | LoadedModel,
    train: Table,
    eval: Table | float,
    out: str | Path,
    options: FinetuneOptions | Mapping[str, Any] | None = None,
    *,
    quiet: bool = False,
    **keywords: Any,
) -> Comparison[ClassifierResult]:
    overwrite = keywords.pop("overwrite", False)
    given = {**(options if isinstance(options, Mapping) else {}), **keywords}
    own = {field.name: given.pop(field.name) for field in fields(ClassifyOptions) if field.name in given}
    settings = options_from(FinetuneOptions, "compare", None if isinstance(options, Mapping) else options, given)
    task: Any = make_task("classify", own)
    if task.options.problem_type != "single_label_classification":
        raise UserError(f"{option('problem_type', task.options.problem_type)}: one label a row is compared")
    from bothways.baselines.classify import compare_classifiers

    rows, eval_rows = read_rows_to_learn(train, eval, task, settings, lambda note: None)  # which finetune says
    fitted: Any = rows.task
    trained, held_out = _columns(fitted, rows.rows), _columns(fitted, eval_rows.rows)
    tuned = finetune("classify", model, train, eval, out, settings, overwrite=overwrite, quiet=quiet, **own)
    if tuned.training.interrupted is not None:
        return Comparison([], len(eval_rows.rows), interrupted=tuned.training.interrupted)
    results: list[ClassifierResult] = list(compare_classifiers(*trained, *held_out, fitted.labels))
    results.append(_encoder(load(out, settings.device), out, fitted, eval_rows.rows, tuned.training.seconds))
    return Comparison(results, len(eval_rows.rows))


def _columns(task: ClassifyTask, rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The texts of the rows, a pair joined by a line break, and their gold labels."""
    texts = [text if isinstance(text, str) else "\n".join(text) for text in map(task.texts, rows)]
    return texts, [task.gold(row) for row in rows]


def _size_of(run: str | Path) -> int:
    return local_file(f"{run}/model/model.safetensors").stat().st_size


def _encoder(
    model: Predictor, run: str | Path, task: ClassifyTask, rows: Sequence[Row], seconds: float
) -> ClassifierResult:
    from bothways.baselines.classify import measure_classifier

    texts: list[Any] = [task.texts(row) for row in rows]

    def predict(texts: Sequence[Any]) -> list[str]:
        return [classification.label for classification in model.classify(texts)]

    gold, cost = [task.gold(row) for row in rows], TrainingCost(seconds, _size_of(run))
    name = f"{FAMILIES[model.config.model_type].title}, fine-tuned"
    return measure_classifier(name, predict, texts, gold, task.labels, cost)


def _compare_language_models(
    store: str | Path | TokenStore,
    out: str | Path,
    options: PretrainOptions | Mapping[str, Any] | None = None,
    *,
    order: int = 3,
    prompt: str | None = None,
    quiet: bool = False,
    **keywords: Any,
) -> Comparison[LanguageModelResult]:
    overwrite = keywords.pop("overwrite", False)
    keywords = keywords if isinstance(options, PretrainOptions) else {"objective": "causal", **keywords}
    settings = options_from(PretrainOptions, "compare", options, keywords)
    require_type("order", order, int)
    if settings.objective != "causal" or order < 2:
        asked = f"{option('objective', settings.objective)} and {option('order', order)}"
        raise UserError(f"compare lm: {asked}: expected causal, 2 or more")
    from bothways.baselines.language import compare_language_models, read_documents_of

    require_path(out=out)
    opened = store if isinstance(store, TokenStore) else TokenStore(store)
    tokenizer = opened.tokenizer()
    train, held_out = (read_documents_of(opened, tokenizer, split) for split in ("train", "validation"))
    if not held_out:
        more = f"{option('validation', 0.1)}, or of one .txt {option('documents', 'blank-line')}"
        raise UserError(f"{opened.directory}: no held-out documents to measure on; prepare more of them ({more})")
    begin = _prompt(prompt, settings, tokenizer, held_out[0])
    words = tokenizer.decode([tokenizer.id(piece) or 0 for piece in begin])
    tokens = sum(map(len, held_out))
    trained = pretrain(opened, out, settings, overwrite=overwrite, quiet=quiet)
    if trained.interrupted is not None:
        return Comparison([], tokens, words, trained.interrupted)
    say = ProgressLine("compare", shown=not quiet).say
    results = list(compare_language_models(train, held_out, tokenizer, begin, order, say))
    model, cost = load(out, settings.device), TrainingCost(trained.seconds, _size_of(out))
    figures = evaluate_store(model.checkpoint, opened, "validation", settings.device, limit=UNLIMITED)
    results.append(_transformer(model, math.exp(figures["lm_loss"]), cost, begin))
    return Comparison(results, tokens, words)


def _prompt(prompt: str | None, options: PretrainOptions, tokenizer: Tokenizer, document: list[str]) -> list[str]:
    """What the samples go on from, as pieces."""
    if prompt is None:
        return document[:-1][:PROMPT_TOKENS]  # without the [SEP] that ends it
    if not isinstance(prompt, str) or not is_unicode(prompt):
        raise UserError(f"{option('prompt')}: not a text")
    pieces = [tokenizer.token(id) for id in tokenizer.encode(prompt, special_tokens=False).input_ids]
    room = options.max_position_embeddings - SAMPLE_TOKENS - 1
    if not 0 < len(pieces) <= room:
        raise UserError(f"{option('prompt')}: {len(pieces)} tokens, expected 1 to {room}")
    return pieces


class _Transformer:
    """A causal model, asked as the baselines are."""

    def __init__(self, model: Predictor) -> None:
        self._model = model

    def _text(self, pieces: Sequence[str]) -> str:
        tokenizer = self._model.tokenizer
        return tokenizer.decode([tokenizer.id(piece) or 0 for piece in pieces])

    def next_words(self, text: list[str], number: int) -> list[str]:
        return [suggestion.word for suggestion in self._model.suggest(self._text(text), number)]

    def sample(self, text: list[str], number: int) -> list[str]:
        tokenizer = self._model.tokenizer
        made = self._model.generate(self._text(text), max_tokens=number)
        ids: np.ndarray = tokenizer.encode(str(made), special_tokens=False).input_ids
        return [tokenizer.token(id) for id in ids.tolist()]


def _transformer(model: Predictor, perplexity: float, cost: TrainingCost, prompt: list[str]) -> LanguageModelResult:
    from bothways.baselines.language import measure_language_model

    return measure_language_model("transformer", _Transformer(model), perplexity, cost, model.tokenizer, prompt)
