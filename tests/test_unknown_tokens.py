"""Text that a vocabulary cannot read is said, wherever text goes in, and never where it can be read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bothways as bw
from bothways.data.encoded import join_segments
from bothways.data.unknown_tokens import UnknownTokens, count_unknown, count_unknown_in
from bothways.errors import UnknownTokensWarning
from bothways.inference import bulk
from bothways.text.tokenizer import Tokenizer
from bothways.train.finetune import finetune
from bothways.train.finetune_options import FinetuneOptions
from tests.helpers import Run, tiny_tokenizer
from tests.inference.test_one_and_many import METHODS, A, model_of

CHINESE = "今年番茄受到了蚜虫的危害。"  # 13 characters, each a word of its own; not one is in the tiny vocabulary
READABLE = (
    "the red dog runs",
    "the red dog 😀",
    "the dog 👍 👍",  # two words and two emoji are half unknown, which is not more than half
    "",
)


def test_the_share_is_counted_by_hand() -> None:
    tokenizer = tiny_tokenizer()
    texts = ["the red dog", "the 今年番", CHINESE, ("the dog", CHINESE[:2]), "[MASK] 今 dog dog"]
    counted = count_unknown_in(tokenizer, join_segments(tokenizer, texts, 64))
    # unknown of tokens: 0 of 3, 3 of 4, 13 of 13 (the full stop 。 too), 0 of 2 and 2 of 2, 1 of 3 as [MASK] is no text
    assert counted == UnknownTokens(5, 27, 19, guesses=3, guess_tokens=19, guess_unknown=18, halves=1)
    assert count_unknown_in(tokenizer, join_segments(tokenizer, texts[:3], 64)).sentence() == (
        "94% of the tokens of 2 of 3 texts are unknown to this model's vocabulary; what it says of them is a guess"
    )
    assert counted + UnknownTokens() == counted
    # a segment counts by itself, however long the other one is
    pair = count_unknown_in(tokenizer, join_segments(tokenizer, ["the dog", ("the red dog runs", CHINESE[:2])], 64))
    assert pair == UnknownTokens(texts=2, tokens=8, unknown=2, guesses=1, guess_tokens=2, guess_unknown=2, halves=1)
    assert (pair.sentence() or "").startswith("100% of the tokens of a segment of 1 of 2 texts are unknown to")
    assert (counted + counted).texts == 10
    assert count_unknown(tokenizer, []) == UnknownTokens()
    assert count_unknown(tokenizer, [np.array([tokenizer.cls_id, tokenizer.sep_id])]).sentence() is None
    # a fifth of a table's tokens is what is borne
    assert UnknownTokens(texts=9, tokens=100, unknown=20).table_sentence("rows") is None
    assert "21% of the tokens of the rows" in (
        UnknownTokens(texts=9, tokens=100, unknown=21).table_sentence("rows") or ""
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_it_at_the_users_line(name: str) -> None:
    kind, ask = METHODS[name]
    model, masked = model_of(kind), "[MASK]" if name == "fill" else ""
    with pytest.warns(UnknownTokensWarning, match="unknown to this model's vocabulary") as given:
        ask(model, [A, CHINESE + masked])
    assert {warning.filename for warning in given} <= {__file__, ask.__code__.co_filename}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask(model, [text + masked for text in READABLE if text] + [A])


def test_one_text_is_called_the_text() -> None:
    with pytest.warns(UnknownTokensWarning, match=r"^100% of the tokens of the text are unknown to this model's voc"):
        model_of("classify").classify(CHINESE)


def test_languages_by_a_published_vocabulary(minilm: Path) -> None:
    """bert-base-uncased has the letters of European languages and little Chinese."""
    tokenizer = Tokenizer.load(minilm)

    def told(text: str) -> bool:
        return count_unknown(tokenizer, [tokenizer.encode(text).input_ids]).sentence() is not None

    assert told(CHINESE)
    assert told("蚜虫危害番茄")
    for text in (
        "No light on my router since this morning 😡😡 please help 🙏",
        "LOL 😂",
        "Der Router blinkt seit gestern grün, und die Bücher sind schön.",
        "Où est passée ma facture de février ?",
        "Мой роутер не работает",
        "$12.50 (incl. 19% VAT) -> https://example.org/?q=1",
    ):
        assert not told(text)


def test_tables_of_any_size_count_it_over_their_parts(
    pretrained: Path, tmp_path: Path, bothways: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MIN_PART_ROWS", 8)
    monkeypatch.setattr(bulk, "LEAST_PART_BYTES", 64)
    texts = ["the dog", "a cat", CHINESE] * 10
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    code, out, _ = bothways("embed", pretrained, "--in", tmp_path / "t.jsonl", "--out", tmp_path / "out.jsonl")
    assert code == 0
    assert "100% of the tokens of 10 of 30 rows are unknown to this model's vocabulary; what it says of" in out
    (tmp_path / "good.jsonl").write_text('{"text": "the dog 😀"}\n' * 20)
    _, out, _ = bothways("embed", pretrained, "--in", tmp_path / "good.jsonl", "--out", tmp_path / "good.out.jsonl")
    assert "unknown" not in out


def test_fine_tuning_and_evaluating_say_it(
    pretrained: Path, tmp_path: Path, bothways: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = [{"text": f"{CHINESE} {n}", "label": str(n % 2)} for n in range(8)]
    good = [
        {"text": f"the red dog {noun}", "label": str(n % 2)} for n, noun in enumerate(("runs", "eats", "sleeps", "a"))
    ]
    options = FinetuneOptions(steps=1, precision="float32")
    finetune("classify", pretrained, rows, good, tmp_path / "zh", options)
    said = capsys.readouterr().err
    assert "of the tokens of the training rows are unknown to this model's vocabulary" in said
    assert "evaluation rows" not in said
    finetune("classify", pretrained, good, rows, tmp_path / "en", options)
    said = capsys.readouterr().err
    assert "of the tokens of the evaluation rows are unknown" in said
    assert "training rows" not in said
    (tmp_path / "zh.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for verb in ("evaluate", "predict"):
        code, _, err = bothways(verb, tmp_path / "en", tmp_path / "zh.jsonl")
        assert code == 0
        assert "of the tokens of" in err
        assert "are unknown to this model's vocabulary" in err
    code, _, err = bothways("classify", tmp_path / "en", CHINESE)
    assert code == 0
    assert "100% of the tokens of the text are unknown" in err


def test_a_store_that_nothing_can_be_learnt_of_leads_on_to_a_vocabulary(
    pretrained: Path, tmp_path: Path, bothways: Run
) -> None:
    text = tmp_path / "mein text.txt"
    text.write_text(f"{CHINESE}\n\n" * 30, encoding="utf-8")
    code, out, _ = bothways("prepare", text, "--tokenizer", pretrained, "--out", tmp_path / "store")
    assert code == 0
    assert "next: bothways pretrain" not in out
    assert f"100% of the tokens of {tmp_path / 'store'} are unknown to the vocabulary" in out
    assert f"bothways tokenizer '{text}' --out vocabulary" in out
    recipe = ("--size", "tiny", "--steps", 1, "--tokens-per-step", 256, "--sequence-length", 32)
    _, _, err = bothways("pretrain", tmp_path / "store", "--out", tmp_path / "run", *recipe)
    assert "100% of the tokens of" in err
    _, _, err = bothways("evaluate", pretrained, text)
    assert f"100% of the tokens of {text} are unknown" in err
    (tmp_path / "en.txt").write_text("the red dog runs. a cat sleeps.\n\n" * 30)
    _, out, _ = bothways("prepare", tmp_path / "en.txt", "--tokenizer", pretrained, "--out", tmp_path / "good")
    assert "next: bothways pretrain" in out


def test_a_conversation_is_read_as_well() -> None:
    from bothways.inference.chat import conversation_prompt
    from bothways.inference.generation_options import GenerationOptions

    model, options = model_of("causal"), GenerationOptions(max_tokens=4)
    with pytest.warns(UnknownTokensWarning):
        conversation_prompt(model, [("user", CHINESE)], options)
    asks: list[Callable[[], Any]] = [lambda: list(model.stream(CHINESE, max_tokens=2)), lambda: model.suggest(CHINESE)]
    for ask in asks:
        with pytest.warns(UnknownTokensWarning):
            ask()


def test_frames_of_unreadable_texts() -> None:
    import pandas as pd

    with pytest.warns(UnknownTokensWarning, match=r"100% of the tokens of 2 of 3 texts"):
        assert len(model_of("classify").classify(pd.DataFrame({"text": [CHINESE, "the dog", CHINESE]}))) == 3
    assert isinstance(model_of("classify").classify("the dog"), bw.Classification)


def test_a_question_that_cannot_be_read_is_said_however_long_its_context() -> None:
    with pytest.warns(UnknownTokensWarning, match=r"^100% of the tokens of a segment of the text are unknown"):
        model_of("answer").answer(CHINESE, "the red dog sleeps in the house. " * 9)
