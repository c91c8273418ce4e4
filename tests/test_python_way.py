"""The whole way in Python: from a list of strings to a model and its figures, and every mistake on it a UserError."""

from __future__ import annotations

import inspect
import logging
import typing
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bothways as bw
from bothways.data.prepare import PrepareKeywords
from bothways.inference.loaded import LoadedModel
from bothways.option_checks import union_members
from bothways.tasks import TASKS
from bothways.text.corpus import CorpusKeywords, CorpusOptions
from bothways.train.keywords import ColumnKeywords, FinetuneKeywords, PretrainKeywords
from tests.nets.models import assemble

TEXTS = [f"the {colour} {animal} eats the fish." for colour in ("old", "red", "blue") for animal in ("dog", "cat")] * 4
ROWS = [{"text": text, "label": "dog" if "dog" in text else "cat"} for text in TEXTS]
TINY = {"steps": 2, "tokens_per_step": 256, "sequence_length": 32, "dropout": 0.0}


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `vocabulary`, `store` and `run`."""
    folder = tmp_path_factory.mktemp("way")
    tokenizer = bw.train_tokenizer(texts=TEXTS, out=folder / "vocabulary", vocab_size=80, min_frequency=1, quiet=True)
    store = bw.prepare(texts=TEXTS, tokenizer=tokenizer, out=folder / "store", validation=0.2, workers=1, quiet=True)
    bw.pretrain(store, folder / "run", size="tiny", quiet=True, **TINY)  # type: ignore[arg-type]
    return folder


def test_from_a_list_of_strings_to_a_model_and_its_figures(way: Path, tmp_path: Path) -> None:
    store = bw.TokenStore(way / "store")
    assert (store.manifest["documents"], store.manifest["tokens"]) == (24, 24 * 7)  # six words and a full stop
    assert store.manifest["unknown_tokens"] == 0
    assert [fill.token for fill in bw.load(way / "run").fill("the old [MASK].", top_k=3)[0]] != []
    assert bw.evaluate(way / "run", store) == bw.evaluate(str(way / "run"), str(way / "store"))
    model = bw.load(way / "run", device="cpu")
    result = bw.finetune("classify", model, ROWS, ROWS[:6], tmp_path / "animals", epochs=12, lr=3e-3, quiet=True)
    assert result.metrics is not None
    assert result.metrics["accuracy"] == 1.0
    figures = bw.evaluate(tmp_path / "animals", ROWS, quiet=True)
    assert figures["accuracy"] == 1.0
    assert figures == bw.evaluate(bw.load(tmp_path / "animals"), ROWS, quiet=True)
    animals = bw.load(tmp_path / "animals")
    assert animals.classify(["the red dog"])[0].label == "dog"
    with pytest.raises(bw.UserError, match="fill needs a masked-LM head; this model was made for classify"):
        animals.fill("the [MASK]")


def test_texts_in_memory_are_read_as_those_of_files(tmp_path: Path) -> None:
    lines = tmp_path / "texts.jsonl"
    lines.write_text("".join(f'{{"text": "{text}"}}\n' for text in TEXTS))
    options = {"vocab_size": 80, "min_frequency": 1, "quiet": True}
    of_file, of_list = bw.train_tokenizer(lines, **options), bw.train_tokenizer(texts=iter(TEXTS), **options)  # type: ignore[arg-type]
    assert of_file.pieces() == of_list.pieces()
    stores = [
        bw.prepare([lines], of_file, tmp_path / "a", workers=1, quiet=True),
        bw.prepare(texts=TEXTS, tokenizer=of_list, out=tmp_path / "b", workers=1, quiet=True),
    ]
    assert stores[0].fingerprint == stores[1].fingerprint
    assert (
        bw.prepare(texts=TEXTS, tokenizer=of_list, out=tmp_path / "b", quiet=True).fingerprint == stores[1].fingerprint
    )
    for library in ("pandas", "polars"):
        column = pytest.importorskip(library).Series(TEXTS)
        assert bw.train_tokenizer(texts=column, **options).pieces() == of_list.pieces()  # type: ignore[arg-type]
    with pytest.raises(bw.UserError, match=r"otherwise: texts has changed since"):
        bw.prepare(texts=TEXTS[1:], tokenizer=of_list, out=tmp_path / "b", quiet=True)


def test_what_is_left_out_of_texts_in_memory_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts: list[Any] = [*TEXTS, None, " ", 5, "half \ud800"]
    with pytest.raises(bw.UserError, match=r"texts:27: column 'text' is not text: 5; skip_bad=True leaves"):
        bw.train_tokenizer(texts=texts, vocab_size=80)
    with caplog.at_level(logging.INFO, logger="bothways"):
        bw.train_tokenizer(texts=texts, vocab_size=80, skip_bad=True, quiet=True)
    assert caplog.messages == [
        "texts: empty document: 2 (first at line 25)",
        "texts: column 'text' is not text: 1 (first at line 27)",
        "texts: half a surrogate pair: 1 (first at line 28)",
        "the text has no more pieces that occur at least 2 times: 54 of 80 asked for",
    ]


def test_quiet_is_silent_and_logs(
    way: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def run(quiet: bool, name: str) -> None:
        bw.finetune("classify", way / "run", ROWS, out=tmp_path / name, steps=1, sequence_length=8, quiet=quiet)

    run(False, "loud")
    assert "rows are longer than 8 tokens" in capfd.readouterr().err
    assert caplog.messages == []
    with caplog.at_level(logging.INFO, logger="bothways"):
        run(True, "quiet")
    assert capfd.readouterr() == ("", "")
    assert any("rows are longer than 8 tokens" in message for message in caplog.messages)


def test_options_as_object_dictionary_and_keywords(way: Path, tmp_path: Path) -> None:
    """They are the same options; keywords win."""
    kept, asked = bw.FinetuneOptions(steps=3, seed=7), {"steps": 3, "seed": 7}
    for number, (options, keywords) in enumerate(
        [
            (kept, {}),
            (asked, {}),
            (None, asked),
            (replace(kept, steps=9), {"steps": 3}),
        ]
    ):
        given: dict[str, Any] = keywords
        result = bw.finetune("classify", way / "run", ROWS, None, tmp_path / f"{number}", options, quiet=True, **given)
        assert result.training.steps == 3
    weights = {(tmp_path / f"{number}" / "model" / "model.safetensors").read_bytes() for number in range(4)}
    assert len(weights) == 1
    named = [{"body": row["text"], "animal": row["label"]} for row in ROWS]
    columns = {"text_column": "body", "label_column": "animal"}
    bw.finetune("classify", way / "run", named, out=tmp_path / "named", options={"steps": 1, **columns}, quiet=True)
    bw.finetune("classify", way / "run", named, out=tmp_path / "too", steps=1, quiet=True, **columns)  # type: ignore[arg-type]
    assert bw.evaluate(tmp_path / "named", named, quiet=True) == bw.evaluate(tmp_path / "too", named, quiet=True)
    assert bw.evaluate(tmp_path / "too", ROWS, text_column="text", label_column="label", quiet=True)["accuracy"] >= 0


def test_pretraining_goes_on_from_a_loaded_model(way: Path, tmp_path: Path) -> None:
    for name, model in (("path", way / "run"), ("loaded", bw.load(way / "run", device="cpu"))):
        bw.pretrain(way / "store", tmp_path / name, model=model, quiet=True, **TINY)  # type: ignore[arg-type]
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("path", "loaded")]
    assert weights[0] == weights[1] != (way / "run" / "model" / "model.safetensors").read_bytes()


def test_a_comparison_in_python(way: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("gensim")
    with caplog.at_level(logging.INFO, logger="bothways"):
        found = bw.compare("classify", way / "run", ROWS, 0.25, tmp_path / "out", steps=2, quiet=True)
    assert found.interrupted is None
    assert len([note for note in caplog.messages if "held out" in note]) == 1, caplog.messages
    assert len(set(caplog.messages)) == len(caplog.messages), caplog.messages
    assert [type(result.accuracy) for result in found.results] == [float] * len(found.results)
    assert found.results[-1].name == "BERT, fine-tuned"
    with pytest.raises(bw.UserError, match=r"problem_type='regression': one label a row is compared"):
        bw.compare("classify", way / "run", ROWS, ROWS, tmp_path / "no", problem_type="regression")


def test_tokenizer_and_store_show_themselves(way: Path) -> None:
    tokenizer, store = bw.Tokenizer.load(way / "vocabulary"), bw.TokenStore(way / "store")
    shown = f"Tokenizer(wordpiece, {tokenizer.vocab_size} pieces, fingerprint {tokenizer.fingerprint})"
    assert repr(tokenizer) == shown
    assert repr(store) == f"TokenStore({way / 'store'}, 24 documents, 24 sentences, 168 tokens)"


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an option of another name": (
        lambda way: bw.pretrain(way / "store", way / "p", step=3),  # type: ignore[call-arg]
        r"^pretrain has no option 'step', did you mean 'steps'\?; accepted: size, model",
    ),
    "in a dictionary": (
        lambda way: bw.pretrain(way / "store", way / "p", {"step": 3}),
        r"^pretrain has no option 'step', did you mean 'steps'\?",
    ),
    "of another type": (
        lambda way: bw.pretrain(way / "store", way / "p", {"steps": "3"}),
        r"^steps is '3', expected int$",
    ),
    "out of range": (
        lambda way: bw.pretrain(way / "store", way / "p", steps=0),
        r"^steps=0: expected at least 1$",
    ),
    "of a vocabulary": (
        lambda way: bw.train_tokenizer(TEXTS, way / "p", vocab_sise=99),  # type: ignore[call-arg]
        r"^train_tokenizer has no option 'vocab_sise', did you mean 'vocab_size'\?; accepted: vocab_size, .*encoding",
    ),
    "of neither the task nor the training": (
        lambda way: bw.finetune("classify", way / "run", ROWS, out=way / "p", labels_column="x"),
        r"^finetune classify has no option 'labels_column', did you mean 'label_column'\?.* text_column.* epochs",
    ),
    "a share as text": (
        lambda way: bw.finetune("classify", way / "run", ROWS, "0.2", way / "p"),
        r"^0\.2: no such file; a share is a number, 0\.2 without quotes$",
    ),
    "a run of another kind": (
        lambda way: bw.finetune("classify", way / "run", ROWS, ROWS[:6], way / "run", steps=1),
        r"run that was made otherwise: the run there is pretraining, this is fine-tuning for classify; overwrite=True",
    ),
    "options of another function": (
        lambda way: bw.finetune("classify", way / "run", ROWS, None, way / "p", bw.PretrainOptions()),  # type: ignore[arg-type]
        r"^options: expected FinetuneOptions or a dictionary, found a PretrainOptions$",
    ),
    "no out": (lambda way: bw.finetune("classify", way / "run", ROWS), r"^out: expected a path, found None$"),
    "a store is no model": (
        lambda way: bw.load(way / "store"),
        r"store is a token store, not a model; pretrain reads it$",
    ),
    "a vocabulary is no model": (lambda way: bw.load(way / "vocabulary"), r"vocabulary is a vocabulary, not a model"),
    "no name": (lambda way: bw.load(""), r"^expected a model's directory or its name on the hub, found ''$"),
    "a table is no model": (lambda way: bw.load(ROWS), r"name on the hub, found a list$"),  # type: ignore[arg-type]
    "a run is no store": (lambda way: bw.pretrain(way / "run", way / "p"), r"run: not a token store: manifest.json is"),
    "texts as sources": (
        lambda way: bw.train_tokenizer(TEXTS),
        r"^the old dog eats the fish\.: no such file or folder \(texts themselves go in as texts\)$",
    ),
    "long texts as sources": (
        lambda way: bw.train_tokenizer([" ".join(TEXTS * 9)]),
        r"^the old dog .{40,50}…: cannot be opened: .* \(texts themselves go in as texts\)$",
    ),
    "both sources and texts": (
        lambda way: bw.train_tokenizer("a.txt", texts=TEXTS),
        r"^sources and texts: give one of them$",
    ),
    "neither": (lambda way: bw.train_tokenizer(), r"^no source, and no texts: give files"),
    "one text": (
        lambda way: bw.train_tokenizer(texts="a text"),
        r"^texts: expected a list of texts .*, found 'a text'$",
    ),
    "columns of a model that reads no rows": (
        lambda way: bw.evaluate(way / "run", way / "store", text_column="x"),
        r"^text_column: for labelled rows; .*run was only pretrained$",
    ),
    "a comparison of nothing": (lambda way: bw.compare("clasify"), r"unknown 'clasify', did you mean 'classify'\?"),  # type: ignore[call-overload]
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_line_in_pythons_words(name: str, way: Path) -> None:
    call, message = MISTAKES[name]
    with pytest.raises(bw.UserError, match=message) as refusal:
        call(way)
    assert "--" not in str(refusal.value)
    assert not (way / "p" / "model").exists()


WRONG = [None, True, 3, -1, 2.5, float("nan"), b"x", "", "no such thing", "\0", Path("no such thing"), [], [1], [None]]
WRONG += [{}, {"a": 1}, {1: 2}, (), ("a", "b"), {"set"}, object(), lambda: 0, bw.UserError, [{"text": "a"}], [[]]]


def calls(way: Path, out: Path) -> dict[str, tuple[Callable[..., object], dict[str, Any]]]:
    """Each function with arguments that are right, and quick."""
    tiny, rows = {"steps": 1, "quiet": True, "sequence_length": 16}, ROWS[:4]
    return {
        "train_tokenizer": (
            bw.train_tokenizer,
            {"sources": (), "texts": TEXTS, "out": out, "vocab_size": 80, "quiet": True},
        ),
        "prepare": (
            bw.prepare,
            {"sources": None, "texts": TEXTS, "tokenizer": way / "vocabulary", "out": out, "workers": 1, "quiet": True},
        ),
        "pretrain": (bw.pretrain, {"store": way / "store", "out": out, "size": "tiny", **tiny}),
        "finetune": (
            bw.finetune,
            {"task": "classify", "model": way / "run", "train": rows, "eval": None, "out": out, **tiny},
        ),
        "evaluate": (bw.evaluate, {"model": way / "run", "table": way / "store", "quiet": True}),
        "load": (bw.load, {"path_or_hub_id": way / "run", "device": "cpu", "precision": "auto"}),
    }


FUNCTIONS = ("train_tokenizer", "prepare", "pretrain", "finetune", "evaluate", "load")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_argument_of_any_type_is_taken_or_refused_in_a_line(
    function: str, way: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every parameter that has a name, and two options of **keywords, with values of every kind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    faults = []
    call, right = calls(way, tmp_path)[function]
    named = [p.name for p in inspect.signature(call).parameters.values() if p.kind is not p.VAR_KEYWORD]
    for parameter in [*(n for n in named if n not in ("progress", "on_progress")), *({"seed", "device"} & {*right})]:
        for number, value in enumerate(WRONG):
            given = {**right, "out": tmp_path / f"{parameter}{number}"} if "out" in right else dict(right)
            try:
                call(**{**given, parameter: value})
            except bw.UserError as error:
                faults += [] if len(str(error).splitlines()) == 1 else [f"{error}: several lines"]
            except Exception as error:
                faults.append(f"{function}({parameter}={value!r}): {type(error).__name__}: {error}")
    assert faults == []


@pytest.fixture(scope="module")
def predictors(way: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bw.Predictor]:
    folder = tmp_path_factory.mktemp("predictors")
    bw.finetune("classify", way / "run", ROWS, out=folder / "classify", steps=1, quiet=True)
    models = {name: assemble(name, folder / name) for name in ("pretraining", "causal")}
    return {name: bw.load(path, device="cpu") for name, path in {**models, "classify": folder / "classify"}.items()}


GENERATED: dict[str, Any] = {"max_tokens": 2, "temperature": 1.0, "top_k": 0, "seed": 0}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "classify": ("classify", {"texts": "the dog"}),
    "predict": ("classify", {"rows": [{"text": "the dog"}]}),
    "embed": ("pretraining", {"texts": "the dog", "normalize": True}),
    "similar": ("pretraining", {"texts": ["the dog", "a cat"], "query": "the dog", "top_k": 1}),
    "hidden_states": ("pretraining", {"texts": "the dog"}),
    "fill": ("pretraining", {"text": "the [MASK]", "top_k": 2}),
    "next_sentence": ("pretraining", {"a": "the dog", "b": "the cat"}),
    "score": ("pretraining", {"text": "the dog", "next": None, "top_k": 2}),
    "generate": ("causal", {"prompt": "the dog", "truncate": None, **GENERATED}),
    "suggest": ("causal", {"prompt": "the dog", "top_k": 2}),
    "explain": ("pretraining", {"text": "the dog", "others": (), "word": None, "anchors": (), "projection": "pca"}),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_question_of_any_type_is_answered_or_refused_in_a_line(
    method: str, predictors: dict[str, bw.Predictor]
) -> None:
    name, right = METHODS[method]
    ask = getattr(predictors[name], method)
    ask(**right)
    faults = []
    for parameter in right:
        for value in WRONG:
            try:
                ask(**{**right, parameter: value})
            except bw.UserError as error:
                faults += [] if len(str(error).splitlines()) == 1 else [f"{error}: several lines"]
            except Exception as error:
                faults.append(f"{method}({parameter}={value!r}): {type(error).__name__}: {error}")
    assert faults == []


def test_numbers_of_numpy_are_numbers(way: Path, tmp_path: Path) -> None:
    steps, lr = np.arange(3)[2], np.float32(1e-3)
    assert bw.pretrain(way / "store", tmp_path / "run", size="tiny", steps=steps, lr=lr, quiet=True).steps == 2
    assert len(bw.load(tmp_path / "run").fill("the [MASK]", top_k=steps)[0]) == 2


def hints_of(kind: type) -> dict[str, Any]:
    """The types of a dataclass's or a TypedDict's fields; several values are a sequence."""
    hints = typing.get_type_hints(kind)
    return {n: Sequence[str] if typing.get_origin(h) in (tuple, Sequence) else h for n, h in hints.items()}


def test_keywords_have_the_names_and_types_of_the_options() -> None:
    wider = {
        "objective": str,
        "family": str | None,
        "model": str | Path | LoadedModel | None,
        "teacher": str | Path | LoadedModel | None,
    }  # names of the registry; a model by itself
    assert hints_of(PretrainKeywords) == {**hints_of(bw.PretrainOptions), **wider}
    corpus = hints_of(CorpusOptions)
    assert hints_of(CorpusKeywords) == corpus
    of_store = {name: hint for name, hint in hints_of(bw.PrepareOptions).items() if name != "corpus"}
    assert hints_of(PrepareKeywords) == {**corpus, **of_store}
    expected: dict[str, Any] = {}
    for kind in (bw.FinetuneOptions, *(task.Options for task in TASKS.values())):
        for name, hint in hints_of(kind).items():
            members = (*union_members(expected.get(name, hint)), *union_members(hint))
            expected[name] = typing.Union[members]  # noqa: UP007
    assert hints_of(FinetuneKeywords) == {**expected, "teacher": str | Path | LoadedModel | None}
    columns = {name: hint for name, hint in expected.items() if name.endswith("_column")}
    assert hints_of(ColumnKeywords) == columns
    for task in TASKS.values():  # a keyword belongs to the task or to the training, never to both
        assert not hints_of(task.Options).keys() & hints_of(bw.FinetuneOptions).keys()


def test_the_names_of_the_package_are_those_it_promises() -> None:
    assert sorted(dir(bw)) == sorted([*bw.__all__, "__version__"])
    assert all(getattr(bw, name).__name__ == name for name in bw.__all__)
    with pytest.raises(AttributeError, match="'pretrian', did you mean 'pretrain'"):
        bw.pretrian  # type: ignore[attr-defined]  # noqa: B018
