"""Conversations: templates, what is learnt of them, bad ones, and a model that replies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertLMHeadModel

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.data.tables import Row, read_rows
from bothways.errors import TruncationWarning, UserError
from bothways.inference.chat import Chat
from bothways.inference.generation_options import GenerationOptions
from bothways.model.families import head_builder
from bothways.tasks.instruct import BEFORE_REPLIES, InstructOptions, InstructTask
from bothways.train.evaluate import evaluate_rows
from tests.helpers import Run, tiny_config, tiny_tokenizer

TALK = [
    {"role": "user", "content": "the dog"},
    {"role": "assistant", "content": "eats"},
    {"role": "user", "content": "and the cat?"},
    {"role": "assistant", "content": "not in the house."},
]
REPLIES = [
    {"question": "the red dog?", "answer": "runs in the house."},
    {"prompt": "the blue dog?", "response": "sleeps on the house."},
    {"command": "eats the cat?", "result": "not a dog."},
    {"messages": TALK},
]


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causal")
    save_checkpoint(
        Checkpoint(new_model(tiny_config(is_decoder=True), head_builder("causal-LM"), seed=1), tiny_tokenizer()),
        folder / "base",
    )
    return folder / "base"


@pytest.fixture(scope="module")
def helper(causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learnt the replies by heart."""
    run = tmp_path_factory.mktemp("helper") / "run"
    bw.finetune("instruct", causal, REPLIES, None, run, bw.FinetuneOptions(steps=150, lr=1e-2, dropout=0.0))
    return run


def test_only_replies_are_learnt_with_the_sep_that_ends_them() -> None:
    tokenizer, task = tiny_tokenizer(), InstructTask()
    (encoded,) = task.encode([Row({"messages": TALK}, "a")], tokenizer, 100)
    rows, wanted = encoded.targets[BEFORE_REPLIES], encoded.targets["next_tokens"]
    assert (
        tokenizer.decode(encoded.input_ids.tolist())
        == "[CLS] the dog [SEP] eats [SEP] and the cat? [SEP] not in the house."
    )
    assert tokenizer.decode(wanted.tolist()) == "eats [SEP] not in the house. [SEP]"
    whole = np.append(encoded.input_ids, tokenizer.sep_id)
    assert whole[rows + 1].tolist() == wanted.tolist()


def test_a_system_message_stands_before_the_users_first_words() -> None:
    tokenizer, system = tiny_tokenizer(), {"role": "system", "content": "old dog"}
    (encoded,) = InstructTask().encode([Row({"messages": [system, *TALK[:2]]}, "a")], tokenizer, 100)
    assert tokenizer.decode(encoded.input_ids.tolist()) == "[CLS] old dog the dog [SEP] eats"


def test_a_long_conversation_loses_its_beginning_and_says_how_much() -> None:
    tokenizer = tiny_tokenizer()
    (encoded,) = InstructTask().encode([Row({"messages": TALK}, "a")], tokenizer, 8)
    assert tokenizer.decode(encoded.input_ids.tolist()) == "[CLS]? [SEP] not in the house."
    assert (len(encoded.input_ids), encoded.truncated) == (8, 8)
    assert tokenizer.decode(encoded.targets["next_tokens"].tolist()) == "not in the house. [SEP]"


def test_packed_conversations_give_the_loss_of_each_by_transformers(causal: Path) -> None:
    theirs = BertLMHeadModel.from_pretrained(causal).eval()
    tokenizer, task, rows = tiny_tokenizer(), InstructTask(), read_rows(REPLIES)
    encoded, losses, tokens = task.encode(rows, tokenizer, 100), 0.0, 0
    for one in encoded:
        ids = torch.from_numpy(np.append(one.input_ids, tokenizer.sep_id))[None]
        labels = torch.full_like(ids, -100)
        labels[0, one.targets[BEFORE_REPLIES] + 1] = torch.from_numpy(one.targets["next_tokens"])
        number = len(one.targets["next_tokens"])
        losses += float(theirs(ids, labels=labels).loss.detach()) * number
        tokens += number
    evaluation = evaluate_rows(bw.load(causal).model, task, rows, encoded)
    assert evaluation.metrics["log_likelihood"] == pytest.approx(-losses / tokens, abs=1e-5)
    assert evaluation.metrics["perplexity"] == pytest.approx(np.exp(losses / tokens), rel=1e-5)


def test_a_model_learns_to_reply_and_transformers_gives_the_same_reply_by_the_template(
    helper: Path,
) -> None:
    model = bw.load(helper)
    assert model.chat("the red dog?", greedy=True) == "runs in the house."
    assert model.chat("eats the cat?", greedy=True) == "not a dog."
    assert model.chat(TALK[:3], greedy=True) == "not in the house."
    tokenizer = AutoTokenizer.from_pretrained(helper / "model")
    theirs = BertLMHeadModel.from_pretrained(helper / "model").eval()
    for messages in ([{"role": "user", "content": "the red dog?"}], TALK[:3]):
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"]
        made = theirs.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :]
        assert tokenizer.decode(made, skip_special_tokens=True) == model.chat(messages, greedy=True)


def test_a_chat_remembers_its_turns_forgets_them_and_drops_the_oldest(helper: Path) -> None:
    model = bw.load(helper)
    greedy = GenerationOptions(greedy=True, max_tokens=40)
    chat = Chat(model)
    first = "".join(chat.reply("the dog", greedy))
    assert chat.turns == [("user", "the dog"), ("assistant", first)]
    assert "".join(chat.reply("and the cat?", greedy)) == model.chat(
        [TALK[0], {"role": "assistant", "content": first}, TALK[2]], greedy=True, max_tokens=40
    )
    chat.reset()
    assert chat.turns == []
    chat.turns = [("user", "dog " * 300), ("assistant", "cat " * 200)]
    with pytest.warns(TruncationWarning, match="its oldest 2 turns are no longer read"):
        assert "".join(chat.reply("the red dog?", greedy)) == "runs in the house."
    with pytest.raises(UserError, match=r"what is said is \d+ tokens long"):
        list(Chat(model).reply("dog " * 600, greedy))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, r"messages is '\[\]', expected a list"),
        ({"messages": "hello"}, "messages is 'hello'"),
        ({"messages": [{"role": "user"}]}, r"message 1 is .*expected \{role, content\}"),
        ({"messages": [TALK[1]]}, "message 1 has the role 'assistant', expected 'user'"),
        ({"messages": [TALK[0], TALK[0]]}, "message 2 has the role 'user', expected 'assistant'"),
        ({"messages": [TALK[0], {"role": "system", "content": "x"}]}, "message 2 has the role 'system'"),
        ({"messages": [TALK[0], {"role": "assistant", "content": " "}]}, "message 2 has the content ' '"),
        ({"messages": TALK[:3]}, "the last message has the role 'user', expected 'assistant'"),
        ({"question": "why?", "reply": "so"}, "neither messages nor prompt/response.*columns present: question, reply"),
        ({"question": "why?", "answer": ""}, "answer"),
    ],
)
def test_malformed_conversations_are_named_by_line(
    row: dict[str, Any], message: str, causal: Path, tmp_path: Path, bothways: Run
) -> None:
    table = tmp_path / "talk.jsonl"
    table.write_text("\n".join(json.dumps(one) for one in (REPLIES[0], row)))
    code, _, errors = bothways("finetune", "instruct", "--model", causal, "--train", table, "--out", tmp_path / "run")
    assert code == 2
    assert len(errors.splitlines()) == 1
    with pytest.raises(UserError, match=message) as caught:
        InstructTask().check(read_rows(table)[1])
    assert f"{table}:2" in str(caught.value)
    assert f"{table}:2" in errors


def test_rows_of_several_kinds_in_one_table_are_told_apart_by_what_they_lack() -> None:
    every = {"messages": None, "question": None, "answer": None, "prompt": None, "response": None}
    rows = [Row({**every, **row}, "a") for row in REPLIES]
    assert [InstructTask().turns(row)[-1][1] for row in rows] == [
        "runs in the house.", "sleeps on the house.", "not a dog.", "not in the house.",
    ]  # fmt: skip


@pytest.mark.parametrize("task", ["classify", "choose"])
def test_tasks_of_the_first_token_refuse_a_model_whose_first_token_sees_nothing(
    task: str, causal: Path, tmp_path: Path
) -> None:
    rows = {
        "classify": [{"text": "the dog", "label": "a"}, {"text": "the cat", "label": "b"}],
        "choose": [{"text": "the dog", "choices": ["eats", "cat"], "label": 0}],
    }
    with pytest.raises(UserError, match=f"reads from left to right.*{task}"):
        bw.finetune(task, causal, rows[task], None, tmp_path / "run")


def test_other_columns_can_be_named_and_a_masked_model_is_refused(pretrained: Path) -> None:
    options = InstructOptions(prompt_column="q", response_column="a")
    task = InstructTask.make(options)
    assert task.turns(Row({"q": "the dog", "a": "eats"}, "1")) == [("user", "the dog"), ("assistant", "eats")]
    assert InstructTask.from_json(task.to_json()).options == options
    with pytest.raises(UserError, match="both or neither"):
        InstructTask.make(InstructOptions(prompt_column="q"))
    with pytest.raises(UserError, match=r"reads both ways.*objective='causal'"):
        bw.finetune("instruct", pretrained, REPLIES, None, pretrained / "run")


def test_the_command_line_chats_evaluates_and_reports(
    causal: Path, helper: Path, tmp_path: Path, bothways: Run
) -> None:
    table, run = tmp_path / "talk.jsonl", tmp_path / "run"
    table.write_text("\n".join(json.dumps(row) for row in REPLIES))
    arguments = ("--model", causal, "--train", table, "--eval", table, "--steps", 4)
    code, output, errors = bothways("finetune", "instruct", *arguments, "--out", run)
    assert code == 0, errors
    assert "perplexity" in output
    assert "next: bothways chat" in output
    assert (run / "report.html").exists()
    code, output, errors = bothways("evaluate", run, table)
    assert code == 0, errors
    assert "token accuracy" in output
    code, output, errors = bothways("chat", helper, "the red dog?", "the blue dog?", "--greedy", "--json")
    assert code == 0, errors
    replies = [json.loads(line)["reply"] for line in output.splitlines()]
    assert replies == ["runs in the house.", "sleeps on the house."]
    (tmp_path / "asked.csv").write_text("id,question\n1,the red dog?\n")
    code, output, errors = bothways("chat", helper, "--in", tmp_path / "asked.csv", "--greedy")
    assert code == 0, errors
    assert output == "runs in the house.\n"
    code, _, errors = bothways("chat", helper, "the red dog?", "--samples", 2)
    assert code == 2
    assert "--samples 2" in errors
