"""Encoders as scikit-learn estimators: they work in `Pipeline`, `cross_val_score` and `GridSearchCV`.

X is a list, array, Series or one-column frame of texts, or of pairs of texts; a tagger's X is a list of lists of words.
`save` and `load` keep a fitted estimator as a Hugging Face directory, without pickle; pickles and copies work too.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from bothways.checkpoint.hugging_face import save_checkpoint
from bothways.checkpoint.shipped import shipped_for
from bothways.data.frames import frame_column, frame_columns, listed_values
from bothways.data.tables import is_missing_value
from bothways.errors import UserError, install_command
from bothways.files import read_json, refuse_foreign_files, write_json
from bothways.predictor import Predictor, load
from bothways.progress import Progress
from bothways.tasks.entities import tags_of
from bothways.tasks.label_scores import score_array
from bothways.tasks.metrics import span_figures
from bothways.tasks.tag import TagTask
from bothways.train.finetune import finetune
from bothways.train.finetune_options import FinetuneOptions, Preset

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
    from sklearn.exceptions import NotFittedError
except ImportError as error:
    raise UserError(f"bothways.sklearn needs scikit-learn: {install_command('baselines')}") from error

ESTIMATOR_FILE = "estimator.json"  # parameters, classes and scale, beside the model's own directory
SAVED_FILES = {ESTIMATOR_FILE, "model"}


class _TextEstimator(BaseEstimator):
    """The part that the estimators share: texts in, a fitted `predictor_`, a directory to keep it in."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        return tags

    def _fitted(self) -> Predictor:
        if not hasattr(self, "predictor_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit first")
        return self.predictor_

    def save(self, directory: str | Path) -> None:
        """Keep the fitted estimator: `model/`, which transformers opens, and what is scikit-learn's in a JSON file.

        Raises UserError for a directory that holds anything else.
        """
        checkpoint, path = self._fitted().checkpoint, Path(directory)
        refuse_foreign_files(path, SAVED_FILES)
        path.mkdir(parents=True, exist_ok=True)
        save_checkpoint(checkpoint, path / "model")
        state = {
            name: _as_json(value) for name, value in vars(self).items() if name.endswith("_") and name != "predictor_"
        }
        write_json(
            path / ESTIMATOR_FILE,
            {
                "class": type(self).__name__,
                "parameters": {n: _as_json(v) for n, v in self.get_params().items()},
                "state": state,
            },
        )

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """A fitted estimator that `save` kept. Raises UserError for a directory of another class."""
        kept = read_json(Path(directory) / ESTIMATOR_FILE)
        if kept.get("class") != cls.__name__:
            raise UserError(f"{directory}: holds a {kept.get('class')}, not a {cls.__name__}")
        estimator = cls(**kept["parameters"])
        for name, value in kept["state"].items():
            setattr(estimator, name, np.array(value) if isinstance(value, list) else value)
        estimator.predictor_ = load(Path(directory) / "model", kept["parameters"].get("device", "auto"))
        return estimator


class _Finetuned(_TextEstimator):
    """An estimator that `fit` fine-tunes. Parameters are those of `FinetuneOptions`; `verbose` shows the progress.

    model: a run, a Hugging Face directory, a shipped model, or a hub id; by default the shipped encoder. The parameters
    stand one by one in `__init__`, however many, as scikit-learn wants it: `get_params`, `clone` and `GridSearchCV`
    read its signature.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        preset: Preset = "standard",
        epochs: int | None = None,
        batch_size: int = 32,
        lr: float | None = None,
        sequence_length: int | None = None,
        dropout: float = 0.1,
        freeze_layers: int = 0,
        seed: int = 0,
        device: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.preset = preset
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.sequence_length = sequence_length
        self.dropout = dropout
        self.freeze_layers = freeze_layers
        self.seed = seed
        self.device = device
        self.verbose = verbose

    def _fit(self, task: str, rows: list[dict[str, Any]], **task_options: Any) -> None:
        given = {name: _as_json(value) for name, value in self.get_params().items() if name not in ("model", "verbose")}
        progress = Progress(f"fit {type(self).__name__}", shown=self.verbose)
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            options = FinetuneOptions(**given)
            result = finetune(task, self.model, rows, None, run, options, progress=progress, **task_options)
            if result.training.interrupted is not None:
                raise KeyboardInterrupt
            self.predictor_ = load(run, self.device)


class BertClassifier(ClassifierMixin, _Finetuned):
    """One label a text. classes_: the labels, sorted, as they came."""

    def fit(self, X: Iterable[Any], y: Sequence[Any]) -> Self:  # noqa: N803
        """Fine-tune on texts and their labels.

        y: one label a text, also as a frame or array of one column. Raises UserError for what is no text, for missing
        labels, for labels that are not as many as texts, and for a single label.
        """
        texts, labels = _texts(X), _labels(y)
        _same_number(texts, labels)
        self.classes_ = np.unique(labels)
        names = dict(zip(self.classes_.tolist(), self._names(), strict=True))
        rows = [{**_row(text), "label": names[label]} for text, label in zip(texts, labels.tolist(), strict=True)]
        self._fit("classify", rows, pair_column=_pair_column(texts))
        return self

    def predict_proba(self, X: Iterable[Any]) -> np.ndarray:  # noqa: N803
        """Probabilities `[N, classes]`, columns as in `classes_`."""
        predictor = self._fitted()
        results = predictor.classify(_texts(X))
        number = {label: place for place, label in enumerate(predictor.labels)}
        order = [number[name] for name in self._names()]
        probabilities = np.empty((len(results), len(order)))
        for row, result in zip(probabilities, results, strict=True):
            row[:] = score_array(result.scores)[order]
        return probabilities

    def _names(self) -> list[str]:
        """What the model calls the classes: as they are written, or by number where that would not tell them apart."""
        written = [str(label).strip() for label in self.classes_.tolist()]
        return written if len({*written, ""}) == len(written) + 1 else [str(n) for n in range(len(written))]

    def predict(self, X: Iterable[Any]) -> np.ndarray:  # noqa: N803
        best: np.ndarray = self.predict_proba(X).argmax(-1)
        return self.classes_[best]


class BertRegressor(RegressorMixin, _Finetuned):
    """A number a text. Targets are brought to mean 0 and deviation 1 for training."""

    def fit(self, X: Iterable[Any], y: Sequence[float]) -> Self:  # noqa: N803
        """Fine-tune on texts and their numbers, one a text, also as a frame or array of one column.

        Raises UserError for what is no text, for missing and infinite numbers, and for fewer or more than texts.
        """
        texts, numbers = _texts(X), _numbers(y)
        _same_number(texts, numbers)
        self.mean_, self.scale_ = float(numbers.mean()), float(numbers.std()) or 1.0
        scaled = ((numbers - self.mean_) / self.scale_).tolist()
        rows = [{**_row(text), "label": number} for text, number in zip(texts, scaled, strict=True)]
        self._fit("classify", rows, problem_type="regression", pair_column=_pair_column(texts))
        return self

    def predict(self, X: Iterable[Any]) -> np.ndarray:  # noqa: N803
        """A number for each text, `[N]`, in the unit of `y`."""
        values = [regression.value for regression in self._fitted().classify(_texts(X))]
        return np.array(values, dtype=np.float64) * self.scale_ + self.mean_


class BertTagger(_Finetuned):
    """A label a word. X: lists of words; y: lists of labels, as many."""

    def fit(self, X: Sequence[Sequence[str]], y: Sequence[Sequence[str]]) -> Self:  # noqa: N803
        _same_number(X, y)
        rows = [{"words": list(words), "labels": list(labels)} for words, labels in zip(X, y, strict=True)]
        self._fit("tag", rows)
        return self

    def predict(self, X: Sequence[Sequence[str]]) -> list[list[str]]:  # noqa: N803
        """The label of every word."""
        predictor = self._fitted()
        return [tagging.labels for tagging in predictor.predict([{"words": list(words)} for words in X])]

    def score(self, X: Sequence[Sequence[str]], y: Sequence[Sequence[str]]) -> float:  # noqa: N803
        """F1 over entities, or, where every word has a label of its own, accuracy over words."""
        task = self._fitted().task("tag")
        guessed, gold = self.predict(X), [list(labels) for labels in y]
        if not isinstance(task, TagTask) or task.scheme == "plain":
            pairs = zip(itertools.chain(*gold), itertools.chain(*guessed), strict=True)
            return float(np.mean([label == guess for label, guess in pairs]))
        figures = span_figures(
            [tags_of(labels, task.scheme) for labels in gold], [tags_of(labels, task.scheme) for labels in guessed]
        )
        return float(figures["f1"])


class BertEmbedder(TransformerMixin, _TextEstimator):
    """Texts to vectors `[N, H]`, with a model as it is; what follows in a `Pipeline` learns.

    model: a run, a Hugging Face directory, a shipped model, or a hub id; by default the shipped one for vectors."""

    def __init__(self, model: str | None = None, *, normalize: bool = True, device: str = "auto") -> None:
        self.model = model
        self.normalize = normalize
        self.device = device

    def fit(self, X: Iterable[Any], y: Any = None) -> Self:  # noqa: N803
        """Open the model; nothing is trained."""
        _texts(X)
        self.predictor_ = load(shipped_for("embed").name if self.model is None else self.model, self.device)
        return self

    def transform(self, X: Iterable[Any]) -> np.ndarray:  # noqa: N803
        return self._fitted().embed(_texts(X), self.normalize)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The names of the columns of `transform`: `bert0`, `bert1`, …"""
        return np.array([f"bert{n}" for n in range(self._fitted().config.hidden_size)], dtype=object)


def _texts(values: Any) -> list[Any]:
    """Texts, or pairs of texts, out of whatever they came in. Raises UserError for anything else.

    values: a list, an array or a Series; a frame or an array of one column are texts, of two columns pairs.
    """
    names = frame_columns(values)
    if names is not None:
        if len(names) not in (1, 2):
            shown = ", ".join(map(str, names))
            raise UserError(f"X: a table with the columns {shown}; give that of the texts, df[['text']] say")
        values = list(zip(*(frame_column(values, name) for name in names), strict=True))
    found = None if isinstance(values, str | bytes | Mapping) else listed_values(values)
    if found is None:
        raise UserError(f"X: expected a list of texts, found {type(values).__name__}")
    listed = [tuple(text) if isinstance(text, list | np.ndarray) else text for text in found]
    if not listed:
        raise UserError("X: no texts")
    listed = [text[0] if isinstance(text, tuple) and len(text) == 1 else text for text in listed]
    for number, text in enumerate(listed):
        segments = text if isinstance(text, tuple) and len(text) == 2 else (text,)
        if not all(isinstance(segment, str) for segment in segments):
            raise UserError(f"X[{number}]: expected a text or a pair of texts, found {str(text)[:60]}")
    return [tuple(map(str, text)) if isinstance(text, tuple) else str(text) for text in listed]  # no numpy strings


def _column(y: Any, what: str) -> np.ndarray:
    """What comes beside the texts, one a text, as scikit-learn has it: an array `[N]` of objects, a single column
    raveled. Raises UserError for several columns and for a missing value."""
    if isinstance(y, str | Mapping) or not isinstance(y, Iterable):
        raise UserError(f"y: expected {what}s, one a text, found {type(y).__name__}")
    values = y.to_numpy() if hasattr(y, "to_numpy") else y
    if isinstance(values, np.ndarray) and not values.ndim:
        raise UserError(f"y: expected {what}s, one a text, found {values}")
    listed = list(values)
    listed = [
        value[0] if isinstance(value, list | tuple | np.ndarray) and len(value) == 1 else value for value in listed
    ]
    for number, value in enumerate(listed):
        if isinstance(value, list | tuple | set | np.ndarray):
            raise UserError(f"y[{number}]: expected one {what}, found {len(value)}")
        if is_missing_value(value):
            raise UserError(f"y[{number}]: no {what}")
    column = np.empty(len(listed), dtype=object)
    column[:] = listed
    return column


def _labels(y: Any) -> np.ndarray:
    """The labels, of the type that numpy finds. Raises UserError as `_column`, and for text beside numbers, which numpy
    would make text of."""
    column = _column(y, "label")
    texts = [isinstance(value, str) for value in column]
    if any(texts) and not all(texts):
        raise UserError(f"y[{texts.index(not texts[0])}]: labels are texts or numbers, not both")
    return np.array(column.tolist())


def _numbers(y: Any) -> np.ndarray:
    """The numbers, float64. Raises UserError as `_column`, and for what is no number or not finite."""
    column = _column(y, "number")
    numbers = np.empty(len(column))
    for place, value in enumerate(column):
        try:
            numbers[place] = value
        except (TypeError, ValueError, OverflowError):
            numbers[place] = np.nan
        if not np.isfinite(numbers[place]):
            raise UserError(f"y[{place}]: {str(value)[:40]!r} is no number")
    return numbers


def _row(text: Any) -> dict[str, str]:
    return {"text": text[0], "pair": text[1]} if isinstance(text, tuple) else {"text": text}


def _pair_column(texts: Sequence[Any]) -> str | None:
    return "pair" if isinstance(texts[0], tuple) else None


def _same_number(texts: Sequence[Any], labels: Sequence[Any] | np.ndarray) -> None:
    if len(texts) != len(labels):
        raise UserError(f"{len(texts)} texts, but {len(labels)} labels")


def _as_json(value: Any) -> Any:
    """numpy's numbers and arrays as Python's, which JSON and dataclasses of options take."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
