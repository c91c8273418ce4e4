"""answer: figures, thresholds, losses, training, and what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.text import squad
from transformers import AutoTokenizer, BertForQuestionAnswering

import bothways as bw
from bothways.data.encoded import Encoded
from bothways.data.tables import read_rows
from bothways.errors import TruncationWarning, UserError
from bothways.tasks.answer import Answer, AnswerOptions, AnswerTask
from bothways.tasks.answer_rows import context_tokens
from bothways.tasks.squad_metric import best_exact, best_f1
from bothways.train.finetune import finetune
from bothways.train.finetune_options import FinetuneOptions
from tests.helpers import hugging_face_config, tiny_config, tiny_tokenizer
from tests.tasks.answers import row

PLACES = ("house", "red house", "old house", "blue house")
ROWS = [
    {
        "question": f"the {animal} sleeps in?",
        "context": f"the {other} runs. the {animal} sleeps in the {place}. a bird eats.",
        "answers": [{"text": place, "answer_start": len(f"the {other} runs. the {animal} sleeps in the ")}],
    }
    for place in PLACES
    for animal in ("dog", "cat", "bird")
    for other in ("dog", "cat", "bird")
]
UNANSWERED = [{**row, "question": "the red green?", "answers": []} for row in ROWS[::3]]


def compared(predicted: Sequence[str], golds: Sequence[Sequence[str]]) -> None:
    """Equality with the official script (v1.1, as torchmetrics carries it), in the sum and one by one."""
    target = [
        {"answers": {"text": list(gold), "answer_start": [0] * len(gold)}, "id": str(n)} for n, gold in enumerate(golds)
    ]
    guesses = [{"prediction_text": text, "id": str(n)} for n, text in enumerate(predicted)]
    official = squad(guesses, target)
    assert 100 * np.mean([best_f1(*both) for both in zip(predicted, golds, strict=True)]) == pytest.approx(
        float(official["f1"]), abs=1e-4
    )
    exact = 100 * np.mean([best_exact(*both) for both in zip(predicted, golds, strict=True)])
    assert exact == pytest.approx(float(official["exact_match"]), abs=1e-4)


def test_figures_equal_the_official_script_on_real_answers(shared_data: Path) -> None:
    rng = random.Random(0)
    rows = read_rows(shared_data / "squad" / "dev-v1.1.json")[:1000]
    golds = [[one["text"] for one in row.values["answers"]] for row in rows]
    predicted = []
    for asked, gold in zip(rows, golds, strict=True):
        words = asked.values["context"].split()
        start = rng.randrange(len(words))
        anything = " ".join(words[start : start + rng.randint(1, 6)])
        predicted.append(rng.choice([gold[0], gold[-1] + " and more", anything]))
    compared(predicted, golds)


def test_figures_equal_the_official_script_on_adversarial_answers() -> None:
    rng = random.Random(1)
    parts = ["the", "The", "a", "an", "theory", "10", "10.5", "U.S.", "U.S", "é", "É", "—", "«x»", "don't", "dont"]
    parts += ["ß", "İ", "東京", "\u00a0", "\u2003", "x-y", "xy", "!", "…", "an apple", "A.", "\n", "\t", "thé"]

    def text() -> str:
        return rng.choice([" ", "  ", ""]).join(rng.choices(parts, k=rng.randint(1, 5)))

    golds = [[text() + " x" for _ in range(rng.randint(1, 3))] for _ in range(1000)]
    compared([rng.choice([text() + "y", rng.choice(gold), rng.choice(gold).upper()]) for gold in golds], golds)


def test_no_answer_counts_as_the_script_of_version_2_counts_it() -> None:
    assert (best_exact("", []), best_f1("", [])) == (1, 1)
    assert (best_exact("x", []), best_f1("x", [])) == (0, 0)
    assert (best_exact("", ["x"]), best_f1("", ["x"])) == (0, 0)
    assert (best_exact("The", [""]), best_f1("the", ["a"])) == (1, 1)  # nothing is left of either


def test_decoding_is_the_best_of_all_spans() -> None:
    """Against every span of every window, with random scores."""
    rng = np.random.default_rng(0)
    tokenizer = tiny_tokenizer()
    context = " ".join(rng.choice(["red", "blue", "dog", "cat", "zebra"], 60))
    task = AnswerTask(AnswerOptions(overlap=5, max_answer_length=7), no_answer=True)
    for _ in range(20):
        asked = row(context=context)
        encoded = task.encode([asked], tokenizer, 80)
        scores = [rng.normal(size=(len(one.input_ids), 2)).astype(np.float32) for one in encoded]
        spans = {}
        for one, of in zip(encoded, scores, strict=True):
            tokens = context_tokens(one)
            for i in tokens:
                for j in tokens[(tokens >= i) & (tokens < i + 7)]:
                    place = int(one.offsets[i, 0]), int(one.offsets[j, 1])
                    spans[place] = max(spans.get(place, -np.inf), float(of[i, 0] + of[j, 1]))
        place = max(spans, key=spans.__getitem__)
        best = context.rfind(" ", 0, place[0]) + 1, (context + " ").find(" ", place[1])  # the whole words of the span
        none = min(float(of[0].sum()) for of in scores)
        answer = task.decode(scores, encoded, asked)
        expected = ("", 0, 0) if spans[place] < none else (context[best[0] : best[1]], *best)
        assert (answer.text, answer.start, answer.end) == expected
        assert answer.margin == pytest.approx(spans[place] - none, abs=1e-5)
        shares = [answer, *answer.alternatives]
        nothing = answer.no_answer_probability if answer.text else 0
        assert sum(one.probability for one in shares) + nothing == pytest.approx(1)


def test_an_answer_that_no_window_holds_trains_as_none() -> None:
    """As in transformers; where a window has it whole, only there."""
    context = " ".join(["dog"] * 30)
    asked = row(context=context, answers=[{"text": " ".join(["dog"] * 12), "answer_start": 40}])
    task = AnswerTask(AnswerOptions(overlap=0))
    with pytest.warns(TruncationWarning, match="1 answers stand whole in no window"):
        encoded = task.add_targets(task.encode([asked], tiny_tokenizer(), 20), [asked])
    assert [int(one.targets["end"]) for one in encoded] == [0] * len(encoded)
    task = AnswerTask(AnswerOptions(overlap=12))
    encoded = task.add_targets(task.encode([asked], tiny_tokenizer(), 42), [asked])
    assert sum(int(one.targets["end"]) > 0 for one in encoded) >= 1


def test_the_threshold_is_the_best_there_is() -> None:
    rng = np.random.default_rng(0)
    gold = [{"text": "x", "answer_start": 0}]
    rows = [row(context="x y z", answers=gold if rng.random() < 0.6 else []) for _ in range(200)]
    margins = rng.normal(size=200)
    texts = rng.choice(["x", "y", "x y"], 200)
    predictions = [Answer(text, 0, 1, 0.5, margin=float(m)) for text, m in zip(texts, margins, strict=True)]

    def f1(threshold: float) -> float:
        shown = [one if one.margin >= threshold else replace(one, text="") for one in predictions]
        return float(task.metrics(shown, rows)["f1"])

    task = AnswerTask(no_answer=True)
    best = max(f1(threshold) for threshold in [*margins, -100, 100])
    assert f1(task.with_tuned_thresholds(predictions, rows).threshold) == pytest.approx(best)
    assert AnswerTask(no_answer=False).with_tuned_thresholds(predictions, rows).threshold == 0


def test_loss_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    theirs = BertForQuestionAnswering(hugging_face_config(tiny_config())).eval()
    task = AnswerTask(AnswerOptions(overlap=2))
    rows = read_rows(ROWS[:1])
    (encoded,) = task.add_targets(task.encode(rows, tokenizer, 64), rows)
    ids = torch.from_numpy(encoded.input_ids)[None]
    types = torch.from_numpy(encoded.token_type_ids)[None]
    start, end = (torch.tensor([int(encoded.targets[name])]) for name in ("start", "end"))
    output = theirs(input_ids=ids, token_type_ids=types, start_positions=start, end_positions=end)
    scores = torch.stack([output.start_logits[0], output.end_logits[0]], -1)
    targets = {name: torch.from_numpy(value) for name, value in task.collate([encoded]).items()}
    loss = task.sums(scores, targets)["loss"] / task.counts(targets)["loss"]
    assert loss.item() == pytest.approx(output.loss.item(), abs=1e-6)


def test_a_batch_of_windows_has_the_loss_of_each() -> None:
    tokenizer, task = tiny_tokenizer(), AnswerTask(AnswerOptions(overlap=2))
    rows = read_rows(ROWS[:7])
    encoded = task.add_targets(task.encode(rows, tokenizer, 20), rows)
    scores = torch.randn(sum(len(one.input_ids) for one in encoded), 2)

    def loss(part: Sequence[Encoded], of: torch.Tensor) -> float:
        targets = {name: torch.from_numpy(value) for name, value in task.collate(part).items()}
        return float(task.sums(of, targets)["loss"])

    parts = scores.split([len(one.input_ids) for one in encoded])
    one_by_one = sum(loss([one], part) for one, part in zip(encoded, parts, strict=True))
    assert loss(encoded, scores) == pytest.approx(one_by_one, rel=1e-5)


def test_an_answerer_from_elsewhere_works_at_once(tmp_path: Path) -> None:
    """The best span of transformers' own logits, out of all of them."""
    torch.manual_seed(0)
    theirs = BertForQuestionAnswering(hugging_face_config(tiny_config(), initializer_range=0.5)).eval()
    theirs.save_pretrained(tmp_path)
    tiny_tokenizer().save(tmp_path)
    one = ROWS[5]
    answer = bw.load(tmp_path).answer(one["question"], one["context"], no_answer=False)
    encoded = AutoTokenizer.from_pretrained(tmp_path)(
        one["question"], one["context"], return_tensors="pt", return_offsets_mapping=True
    )
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        output = theirs(**encoded)
    context = [n for n, kind in enumerate(encoded["token_type_ids"][0].tolist()) if kind == 1][:-1]
    spans = {
        (i, j): output.start_logits[0, i] + output.end_logits[0, j] for i in context for j in context if i <= j < i + 30
    }
    first, last = max(spans, key=spans.__getitem__)
    assert (answer.start, answer.end) == (offsets[first][0], offsets[last][1])


def test_fine_tuning_learns_tunes_saves_and_answers(pretrained: Path, tmp_path: Path) -> None:
    options = FinetuneOptions(epochs=24, batch_size=8, lr=4e-3, sequence_length=40, dropout=0.0, precision="float32")
    rows = [*ROWS, *UNANSWERED]
    result = finetune("answer", pretrained, rows, rows, tmp_path / "run", options, overlap=8)
    assert result.metrics is not None
    assert result.metrics["f1"] > 0.9
    model = bw.load(tmp_path / "run")
    one = ROWS[5]
    answer = model.answer(one["question"], one["context"])
    assert answer.text == one["context"][answer.start : answer.end] == one["answers"][0]["text"]
    assert 0 < answer.probability <= 1
    state = json.loads((tmp_path / "run" / "model" / "bothways.json").read_text())
    assert state["no_answer"] is True
    assert isinstance(state["threshold"], float)
    theirs = BertForQuestionAnswering.from_pretrained(tmp_path / "run" / "model").eval()
    assert theirs.config.architectures == ["BertForQuestionAnswering"]
    assert model.answer("the red green?", one["context"], no_answer=False).text
    assert (tmp_path / "run" / "predictions.csv").read_text(encoding="utf-8-sig").startswith("question,predicted,start")


def test_refusals(pretrained: Path, tmp_path: Path) -> None:
    wrong = {"question": "x?", "context": "the dog", "answers": [{"text": "cat", "answer_start": 0}]}
    with pytest.raises(UserError, match=r"row 2: the answer 'cat' is not in its context at character 0 \(skip_bad"):
        finetune("answer", pretrained, [ROWS[0], wrong], None, tmp_path / "r")
    options = FinetuneOptions(steps=1, skip_bad=True, sequence_length=32)
    result = finetune("answer", pretrained, [ROWS[0], wrong], None, tmp_path / "r", options, overlap=4)
    assert result.skipped == 1
    with pytest.raises(UserError, match="overlap=-1 and max_answer_length=30: expected at least 0 and 1"):
        finetune("answer", pretrained, ROWS, None, tmp_path / "s", overlap=-1)
    with pytest.raises(UserError, match="overlap is 'x', expected int"):
        finetune("answer", pretrained, ROWS, None, tmp_path / "s", overlap="x")
    with pytest.raises(UserError, match="no question has an answer"):
        finetune("answer", pretrained, UNANSWERED, None, tmp_path / "s")
    with pytest.raises(UserError, match="answer has no option 'overlapp', did you mean 'overlap'"):
        finetune("answer", pretrained, ROWS, None, tmp_path / "s", overlapp=3)
    task = AnswerTask()
    for values, message in (
        ({"context": " ", "answers": []}, "column 'context' is empty"),
        ({"context": "x"}, "column 'answers' is missing"),
        ({"context": "x", "answers": 5}, "not a list"),
        ({"context": "x", "answers": [{"text": None}]}, "an answer is None"),
        ({"context": "x y", "answers": [{"text": "y"}], "is_impossible": True}, "is_impossible is True beside answers"),
        ({"context": "🙂🙂 y", "answers": [{"text": "y", "answer_start": 5}]}, "UTF-16 units"),
        ({"context": "x y", "answers": "y", "answer_start": "7"}, "is not in its context at character 7"),
        ({"context": "x y", "answers": "y", "answer_start": "two"}, "answer_start is 'two', expected the number"),
        ({"context": "x y", "answers": "y", "answer_start": -1}, "answer_start is '-1', expected the number"),
        ({"context": "x y", "answers": "y", "answer_start": float("inf")}, "answer_start is 'inf'"),
        ({"context": "x y", "answers": "y", "answer_start": 10**400}, "is not in its context"),
        ({"context": "x y", "answers": {"text": "y", "answer_start": 2}}, "expected lists of text and answer_start"),
        ({"context": "x y", "answers": {"text": ["y"], "answer_start": []}}, "as long as each other"),
    ):
        with pytest.raises(UserError, match=message):
            task.check(row(**values))
    assert task.gold(row(context="x y y", answers="y", answer_start=float("nan"))) == [(2, 3)]
    assert task.gold(row(context="x y y", answers="y", answer_start="4")) == [(4, 5)]
    assert task.gold(row(context="x y", answers="")) == []
    assert task.gold(row(context="x y", answers={"text": ["y"], "answer_start": [2]})) == [(2, 3)]
    with pytest.raises(UserError, match="answer needs a model fine-tuned for it"):
        bw.load(pretrained).answer("x", "y")


def test_ways_of_saying_that_there_is_no_answer(tmp_path: Path) -> None:
    """Empty texts, at -1 or 0 or without a place, alone and side by side; beside an answer they do not count, as in
    SQuAD's script, which filters them out of the gold answers."""
    task = AnswerTask()
    for nothing in (
        [{"text": "", "answer_start": -1}],
        [{"text": "", "answer_start": 0}, {"text": " ", "answer_start": 0}],
        {"text": [""], "answer_start": [0]},
        {"text": [""], "answer_start": [-1]},
        {"text": [], "answer_start": []},
        [{"text": ""}],
        [""],
        " ",
    ):
        assert task.gold(row(context="x y", answers=nothing)) == []
        assert task.gold(row(context="x y", answers=nothing, is_impossible=True)) == []
    assert task.gold(row(context="x y", answers=[{"text": "", "answer_start": -1}, "y"])) == [(2, 3)]
    asked = {"id": "1", "question": "?", "is_impossible": True, "answers": [{"text": "", "answer_start": -1}]}
    content = {"data": [{"title": "t", "paragraphs": [{"context": "a b", "qas": [asked]}]}]}
    (tmp_path / "q.json").write_text(json.dumps(content))
    assert [task.gold(found) for found in read_rows(tmp_path / "q.json")] == [[]]
