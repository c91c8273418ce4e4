"""answer: where an answer stands in its text, to the character, in windows and in whole words."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from bothways.data.tables import read_rows
from bothways.tasks.answer import AnswerOptions, AnswerTask
from bothways.tasks.answer_rows import whole_words
from bothways.text.tokenizer import Tokenizer
from tests.helpers import tiny_tokenizer
from tests.tasks.answers import found_again, row


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
