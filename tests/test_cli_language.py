"""The language verbs on the command line: generate, score, suggest, chat; and what they refuse, in one line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.data.prepare import PrepareOptions, prepare
from bothways.model.families import head_builder
from bothways.tasks.instruct import InstructTask
from bothways.text.corpus import CorpusOptions
from tests.helpers import Run, tiny_config, tiny_tokenizer


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causal")
    model = new_model(tiny_config(is_decoder=True, initializer_range=0.3), head_builder("causal-LM"), seed=1)
    save_checkpoint(Checkpoint(model, tiny_tokenizer()), folder / "m")
    return folder / "m"


@pytest.fixture(scope="module")
def helper(causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says of itself that it chats; what it says is of no account."""
    folder = tmp_path_factory.mktemp("helper")
    model = new_model(tiny_config(is_decoder=True, initializer_range=0.3), head_builder("causal-LM"), seed=2)
    save_checkpoint(Checkpoint(model, tiny_tokenizer(), InstructTask().to_json()), folder / "m")
    return folder / "m"


def test_a_text_is_gone_on_with_streamed_in_samples_and_as_json(causal: Path, bothways: Run) -> None:
    code, streamed, errors = bothways("generate", causal, "the dog", "--max-tokens", 6)
    assert code == 0, errors
    assert streamed.startswith("the dog")
    code, output, _ = bothways("generate", causal, "the dog", "--max-tokens", 6, "--json")
    assert code == 0
    line = json.loads(output)
    assert line["prompt"] + line["text"] == streamed.rstrip("\n")
    code, output, _ = bothways("generate", causal, "the dog", "a cat", "--samples", 2, "--max-tokens", 6, "--json")
    lines = [json.loads(one) for one in output.splitlines()]
    assert [(one["prompt"], one["sample"]) for one in lines] == [
        ("the dog", 0), ("the dog", 1), ("a cat", 0), ("a cat", 1),
    ]  # fmt: skip
    assert lines[0]["text"] == line["text"], "the first sample is what is said without more of them"


def test_steps_are_shown_with_the_likeliest_words(causal: Path, bothways: Run) -> None:
    code, output, errors = bothways("generate", causal, "the dog", "--max-tokens", 3, "--greedy", "--show-steps")
    assert code == 0, errors
    assert "chosen" in output
    assert output.count("%") >= 3 * 6
    assert "the dog" in output.splitlines()[-1]


def test_texts_are_scored_and_words_suggested(causal: Path, pretrained: Path, bothways: Run) -> None:
    code, output, errors = bothways("score", causal, "the dog eats", "--next", "zebra")
    assert code == 0, errors
    assert "log-probability" in output
    assert "P(zebra | text)" in output
    code, output, _ = bothways("score", pretrained, "the dog eats", "--next", "in")
    assert "each word masked in turn" in output
    code, output, _ = bothways("score", causal, "the dog eats", "--json")
    assert len(json.loads(output)["tokens"]) == 3
    code, output, _ = bothways("suggest", causal, "the dog", "--json")
    assert len(json.loads(output)["words"]) == 3


def test_a_chat_reads_lines_until_it_is_stopped(helper: Path, bothways: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "the dog\nand the cat\n\n/help\n/rest\n/reset\nthe dog\n" + "dog " * 600 + "\n/stop\nnever read\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    code, output, errors = bothways("chat", helper, "--greedy", "--max-tokens", 8)
    assert code == 0
    replies = output.splitlines()
    assert len(replies) == 3, errors
    assert replies[0] == replies[2], "after /reset it begins anew"
    assert "(forgotten)" in errors
    assert "\n/reset forgets the conversation, /stop or Ctrl-D ends it" in f"\n{errors}"
    assert "/rest is no command: /reset forgets" in errors
    assert "what is said is" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", ""), "the text is empty"),
        (("generate", "the", "--temperature", 0), "--temperature 0.0: expected a number above 0"),
        (("generate", "the", "--temperature=-1"), "--temperature -1.0"),
        (("generate", "dog " * 600), "the position table has 512 rows"),
        (("generate", "the", "--show-steps", "--samples", 2), "--show-steps"),
        (("score", "dog " * 600), "the position table has 512 rows"),
        (("score", "the", "--top-k", 0), "--top-k 0"),
        (("score", "the", "--next", "\udcff"), "--next"),
        (("generate", "the", "--seed", 1 << 64), "--seed"),
        (("generate", "the", "--temperature", 1e-40), "--temperature"),
        (("suggest", "the", "--top-k", 0), "--top-k 0"),
        (("chat", "hello"), "chat needs a model fine-tuned on conversations"),
        (("fill", "the [MASK]"), "fill needs a masked-LM head"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_code_2(
    arguments: tuple[object, ...], message: str, causal: Path, bothways: Run
) -> None:
    verb, *rest = arguments
    code, _, errors = bothways(verb, causal, *rest)
    assert code == 2
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_a_masked_model_does_not_generate_and_is_not_trained_on_next_tokens(
    pretrained: Path, causal: Path, tmp_path: Path, bothways: Run
) -> None:
    code, _, errors = bothways("generate", pretrained, "the dog")
    assert code == 2
    assert "--objective causal" in errors
    (tmp_path / "t.txt").write_text("\n\n".join(["the dog runs in the house"] * 30))
    options = CorpusOptions(documents="blank-line")
    store = prepare(
        [str(tmp_path / "t.txt")], tiny_tokenizer(), tmp_path / "store", PrepareOptions(options, validation=0.1)
    )
    run = ("--out", tmp_path / "run", "--steps", 2, "--tokens-per-step", 300)
    code, _, errors = bothways("pretrain", store.directory, "--model", pretrained, "--objective", "causal", *run)
    assert code == 2
    assert "reads both ways (is_decoder), which --objective causal does not fit" in errors
    code, output, errors = bothways("pretrain", store.directory, "--model", causal, "--objective", "causal", *run)
    assert code == 0, errors
    assert "next: bothways generate" in output
    code, output, errors = bothways("evaluate", tmp_path / "run", store.directory, "--json")
    assert code == 0, errors
    assert json.loads(output)["perplexity"] > 1
    code, output, errors = bothways("info", tmp_path / "run", "--batch", 1)
    assert code == 0, errors
    assert "[CLS] the dog runs in the house → [SEP]" in output
