"""Results as dictionaries and tables, and how they show themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import bothways as bw
from bothways.errors import UserError
from bothways.inference.scoring import TextScore, TokenProbability
from bothways.inference.vectors import Match
from bothways.tasks.classifications import Classification, MultiClassification, Regression
from bothways.tasks.label_scores import scores_by_label
from bothways.tasks.results import Result
from bothways.train.finetune import finetune
from bothways.train.finetune_options import FinetuneOptions
from bothways.train.loop import TrainResult
from tests.inference.test_one_and_many import METHODS, A, model_of
from tests.tasks.test_classify import ROWS

NAMES = ("classify", "tag", "answer", "choose", "similar", "fill", "score", "suggest")


@pytest.mark.parametrize("name", NAMES)
def test_every_result_is_json_and_a_row_of_a_table(name: str) -> None:
    kind, ask = METHODS[name]
    found = ask(model_of(kind), A)
    results = found if isinstance(found, list) else [found]
    flat = [result for entry in results for result in (entry if isinstance(entry, list) else [entry])]
    assert flat
    for result in flat:
        assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()
    table = bw.to_table(found)
    assert table.num_rows == len(flat)
    assert set(table.column_names) - {"row"} == set(flat[0].to_dict())
    assert len(table.to_pandas()) == len(flat)
    assert pl.from_arrow(table).height == len(flat)  # type: ignore[union-attr]
    assert len(pd.DataFrame([result.to_dict() for result in flat])) == len(flat)


def test_the_columns_are_the_fields() -> None:
    results = [Classification("a", {"a": 0.75, "b": 0.25}), Classification("b", {"a": 0.5, "b": 0.5})]
    frame = bw.to_table(results).to_pandas()
    assert frame[["label", "probability"]].to_numpy().tolist() == [["a", 0.75], ["b", 0.5]]
    assert frame["scores"][0] == {"a": 0.75, "b": 0.25}
    assert bw.to_table(MultiClassification(["a"], {"a": 0.9})).to_pylist() == [{"labels": ["a"], "scores": {"a": 0.9}}]
    assert bw.to_table([Regression(1.5), Regression(2.5)])["value"].to_pylist() == [1.5, 2.5]
    assert bw.to_table([0.5, 1.0]).to_pylist() == [{"predicted": 0.5}, {"predicted": 1.0}]
    entities: Any = [
        [bw.Entity("x", "a", 0, 1, 0.5), bw.Entity("y", "b", 2, 3, 0.5)],
        [],
        [bw.Entity("x", "c", 0, 1, 1)],
    ]
    assert bw.to_table(entities).select(["row", "text"]).to_pylist() == [
        {"row": 0, "text": "a"}, {"row": 0, "text": "b"}, {"row": 2, "text": "c"}
    ]  # fmt: skip
    assert bw.to_table([]).num_rows == 0
    for nonsense in (bw.Entity, [[[Regression(1.0)]]], [Regression(1.0), [Regression(1.0)]], [b"x"]):
        with pytest.raises(UserError, match=r"^to_table: "):
            bw.to_table(nonsense)


def test_answers_have_their_alternatives_and_no_infinity() -> None:
    answer = model_of("answer").answer("the dog?", "the red dog runs in the house")
    told = answer.to_dict()
    assert list(told) == ["text", "start", "end", "probability", "no_answer_probability", "alternatives"]
    assert [span["text"] for span in told["alternatives"]] == [span.text for span in answer.alternatives]
    assert "alternatives" not in told["alternatives"][0]
    assert len(repr(answer)) < 200


def test_many_labels_show_the_likeliest() -> None:
    import numpy as np

    labels = {f"label{n}": n for n in range(150)}
    shown = repr(Classification("label149", scores_by_label(labels, np.arange(150) / 11175)))
    assert shown.startswith("Classification(label='label149', scores={'label149': 0.01333, 'label148': 0.01324, ")
    assert shown.endswith("… 145 more})")
    assert (
        repr(Classification("a", {"b": 0.25, "a": 0.75})) == "Classification(label='a', scores={'a': 0.75, 'b': 0.25})"
    )


def test_a_run_shows_its_figures_and_not_its_rows(pretrained: Path, tmp_path: Path) -> None:
    options = FinetuneOptions(steps=2, batch_size=8, precision="float32")
    result = finetune("classify", pretrained, pd.DataFrame(ROWS), pl.DataFrame(ROWS), tmp_path / "run", options)
    assert result.evaluation is not None
    accuracy = result.evaluation.metrics["accuracy"]
    assert repr(result).startswith(f"FinetuneResult(steps=2, accuracy={accuracy:.4g}, ")
    assert repr(result.evaluation).startswith(f"Evaluation(classify, {len(ROWS)} rows, accuracy={accuracy:.4g}, ")
    assert max(len(repr(result)), len(repr(result.evaluation))) < 300


def test_labels_that_were_numbers_are_text(pretrained: Path, tmp_path: Path) -> None:
    """As a Hugging Face config has them, so that it does not matter which file a row came from."""
    rows = [{"text": row["text"], "label": int(row["label"] == "thing")} for row in ROWS]
    finetune("classify", pretrained, rows, None, tmp_path / "run", FinetuneOptions(steps=1, precision="float32"))
    model = bw.load(tmp_path / "run")
    assert model.labels == ["0", "1"]
    assert model.classify("the dog").label in ("0", "1")


def test_a_repr_has_four_digits_and_the_fields_have_all() -> None:
    score = TextScore(-12.345678901, 45.678901234, [TokenProbability("a", 1 / 3)], [], None, [])
    assert repr(score) == (
        "TextScore(log_probability=-12.35, perplexity=45.68, tokens=[TokenProbability(token='a', probability=0.3333)], "
        "next=[], next_probability=None, alternatives=[])"
    )
    assert score.tokens[0].probability == 1 / 3
    assert repr(Match("x", 0, 0.123456789)) == "Match(text='x', index=0, cosine=0.1235)"
    assert repr(TrainResult(10, None, 12345.678)) == "TrainResult(steps=10, interrupted=None, seconds=12346)"


def test_every_result_has_that_repr() -> None:
    """`@dataclass` gives a class a `__repr__` of all digits unless it is told not to."""
    kinds, found = [Result], set()
    while kinds:
        found.update(more := kinds.pop().__subclasses__())
        kinds += more
    own = {kind.__name__ for kind in found if kind.__module__.startswith("bothways.") and "__repr__" in vars(kind)}
    assert own == {"Classification", "MultiClassification"}, "the likeliest labels only, in four digits"
