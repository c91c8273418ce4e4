"""Question answering: windows and offsets, the official figures, thresholds, fine-tuning end to end."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import squad
from transformers import AutoTokenizer, BertForQuestionAnswering

import bothways as bw
from bothways.data.encoded import Encoded
from bothways.data.tables import Row, read_rows
from bothways.errors import TruncationWarning, UserError
from bothways.tasks.answer import Answer, AnswerOptions, AnswerTask
from bothways.tasks.answer_rows import context_tokens, whole_words
from bothways.tasks.squad_metric import best_exact, best_f1
from bothways.text.tokenizer import Tokenizer
from bothways.train.finetune import finetune
from bothways.train.finetune_options import FinetuneOptions
from tests.helpers import hugging_face_config, tiny_config, tiny_tokenizer

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


def row(**values: Any) -> Row:
    return Row({"question": "where?", **values}, "row 1")


def perfect(encoded: Sequence[Encoded]) -> list[np.ndarray]:
    """The scores of a model that is sure of every target."""
    scores = []
    for one in encoded:
        sure = np.zeros((len(one.input_ids), 2), dtype=np.float32)
        sure[one.targets["start"], 0] = sure[one.targets["end"], 1] = 9
        scores.append(sure)
    return scores


def found_again(task: AnswerTask, asked: Row, tokenizer: Tokenizer, max_length: int) -> Answer:
    encoded = task.add_targets(task.encode([asked], tokenizer, max_length), [asked])
    assert max(len(one.input_ids) for one in encoded) <= max_length
    return task.decode(perfect(encoded), encoded, asked)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_gold_span_is_found_again_in_any_text(data: st.DataObject) -> None:
    """Any Unicode, any window and overlap: an answer of whole words is found exactly, where a window has it whole."""
    text = data.draw(st.text(min_size=1, max_size=120).filter(lambda text: text.strip()))
    tokenizer = tiny_tokenizer()
    pieces = tokenizer.encode(text, special_tokens=False)
    words = [place for place in Tokenizer.words(text) if _has_a_piece(place, pieces.offsets)]
    if not words:
        return
    first = data.draw(st.integers(0, len(words) - 1))
    begin, end = words[first][0], words[min(len(words), first + data.draw(st.integers(1, 3))) - 1][1]
    touched = np.flatnonzero((pieces.offsets[:, 1] > begin) & (pieces.offsets[:, 0] < end))
    length = touched[-1] - touched[0] + 1
    overlap = data.draw(st.integers(int(length), int(length) + 5))
    room = data.draw(st.integers(2 * overlap, 2 * overlap + 30))
    task = AnswerTask(AnswerOptions(overlap=overlap, max_answer_length=int(length)))
    question = "the"
    asked = row(question=question, context=text, answers=[{"text": text[begin:end], "answer_start": begin}])
    answer = found_again(task, asked, tokenizer, room + 3 + 1)
    covered = pieces.offsets[touched[0], 0], pieces.offsets[touched[-1], 1]
    # "I\x85NA" is two words, and one to WordPiece, which drops the character between them, so a piece may end in a word
    assert [(answer.start, answer.end)] == whole_words([covered], text)
    assert text[answer.start : answer.end] == answer.text


def _has_a_piece(place: tuple[int, int], offsets: np.ndarray) -> bool:
    return bool(((offsets[:, 1] > place[0]) & (offsets[:, 0] < place[1])).any())


@pytest.mark.parametrize(
    ("context", "answer", "start"),
    [
        ("Paris, Paris and again Paris.", "Paris", 23),
        ("Le café  du\u00a0Monde — 👍🏽 très bon", "café  du\u00a0Monde", 3),
        ("emoji 😀 in the middle", "😀", 6),
        ("a\tb\n\nc", "b", 2),
        ("東京タワーは高い", "タワー", 2),
        ("prix: 12,50€ net", "12,50€", 6),
        ("  leading and trailing  ", "leading", 2),
    ],
)
def test_exact_characters(context: str, answer: str, start: int, minilm: Path) -> None:
    asked = row(context=context, answers=[{"text": answer, "answer_start": start}])
    found = found_again(AnswerTask(AnswerOptions(overlap=4)), asked, Tokenizer.load(minilm), 24)
    assert (found.text, found.start) == (answer, start)


def test_an_answer_after_100_000_characters() -> None:
    context = "a bird eats. " * 8000 + "the cat sleeps in the red house."
    asked = row(context=context, answers=[{"text": "red house", "answer_start": 104_022}])
    found = found_again(AnswerTask(), asked, tiny_tokenizer(), 384)
    assert (found.text, found.start) == ("red house", 104_022)


def test_windows_are_those_of_transformers(shared_data: Path, minilm: Path) -> None:
    tokenizer, theirs = Tokenizer.load(minilm), AutoTokenizer.from_pretrained(minilm)
    rows = read_rows(shared_data / "squad" / "dev-v2.0.json")[:200]
    for max_length, overlap in ((384, 128), (96, 30), (64, 0)):
        ours = AnswerTask(AnswerOptions(overlap=overlap)).encode(rows, tokenizer, max_length)
        questions = [row.values["question"].strip() for row in rows]
        expected = theirs(
            questions,
            [row.values["context"] for row in rows],
            truncation="only_second",
            max_length=max_length,
            stride=overlap,
            return_overflowing_tokens=True,
        )
        assert [one.input_ids.tolist() for one in ours] == expected["input_ids"]
        assert [one.token_type_ids.tolist() for one in ours] == expected["token_type_ids"]
        assert [one.row for one in ours] == expected["overflow_to_sample_mapping"]


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
    for row, gold in zip(rows, golds, strict=True):
        words = row.values["context"].split()
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


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize(
    ("context", "answer"),
    [
        (unicodedata.normalize("NFD", "We met at the Café. Then we left."), unicodedata.normalize("NFD", "the Café")),
        ("वह दिल्ली में रहता है।", "दिल्ली में"),
        ("הוּא גָּר בִּירוּשָׁלַיִם הַיּוֹם", "בִּירוּשָׁלַיִם"),
        ("ذَهَبَ الوَلَدُ إِلَى المَدْرَسَةِ أَمْسِ", "المَدْرَسَةِ"),
        ("I love ❤️ so much", "love ❤️"),
        ("ไป ที่ น้ำ นี้", "น้ำ"),
        ("葛󠄀城市に行く", "葛󠄀"),
        (unicodedata.normalize("NFD", "나는 서울에 산다"), unicodedata.normalize("NFD", "서울에")),
    ],
)
def test_answers_that_end_in_marks_can_be_reached(context: str, answer: str, lowercase: bool) -> None:
    """The best that a model can do is the gold answer itself, to the character; so is what it says in bulk."""
    tokenizer, task = Tokenizer.train(lambda: [context] * 4, 160, lowercase, 1), AnswerTask()
    asked = row(context=context, answers=[{"text": answer, "answer_start": context.index(answer)}])
    found = found_again(task, asked, tokenizer, 64)
    assert found.text == context[found.start : found.end] == answer
    assert task.metrics([found], [asked]) == {"f1": 1.0, "exact_match": 1.0}
    (told,) = [column.value(found) for column in task.result_columns() if column.name == "predicted"]
    assert told == answer


@pytest.mark.parametrize(
    ("context", "piece", "expected"),
    [
        ("It means that all is well.", "eans that all is w", "means that all is well"),
        ("It is well.", "ell.", "well."),
        ("Anna's dog", "nn", "Anna"),  # punctuation ends a word, and gold answers often end there
        ("a 20-year plan", "yea", "year"),
        ("in cafe\u0301s there", "caf", "cafe\u0301s"),  # with the marks of its letters
        ("das Gärtenfest", "arten".replace("a", "ä"), "Gärtenfest"),
        ("東京は日本の首都です", "京", "京"),
        ("これはペンです", "ペン", "ペン"),
        ("서울은 크다", "서울", "서울"),
        ("กรุงเทพเป็นเมือง", "กรุงเทพ", "กรุงเทพ"),
        ("Tom\u200d went", "om", "Tom"),
        ("x, y", ",", ","),
    ],
)
def test_spans_are_widened_to_whole_words(context: str, piece: str, expected: str) -> None:
    start = context.index(piece)
    ((begin, end),) = whole_words([(start, start + len(piece))], context)
    assert context[begin:end] == expected
    assert whole_words([(begin, end)], context) == [(begin, end)]


def test_spans_that_become_the_same_words_are_one_answer() -> None:
    tokenizer, task, asked = tiny_tokenizer(), AnswerTask(), row(question="the", context="the zebra sat")
    (window,) = task.encode([asked], tokenizer, 40)
    rng = np.random.default_rng(1)
    answer = task.decode([rng.normal(size=(len(window.input_ids), 2)).astype(np.float32)], [window], asked)
    found = [answer, *answer.alternatives]
    assert len({(one.start, one.end) for one in found}) == len(found) <= 6  # of three words, six spans
    assert all(asked.values["context"][one.start : one.end] == one.text for one in found)
    assert sum(one.probability for one in found) == pytest.approx(1)
    assert {word for one in found for word in one.text.split()} <= {"the", "zebra", "sat"}
