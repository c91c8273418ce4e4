"""The valid files that are damaged, and what is done with them."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import bothways as bw
from bothways.checkpoint.compact import save_compact
from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.data.stream import RowStream
from bothways.data.tables import TableOptions
from bothways.model.encoder import Encoder
from bothways.model.families import FAMILIES, head_builder
from bothways.model.heads import Head
from bothways.model.pooling import Dense, TokenPooling
from bothways.model.task_heads import EmbeddingHead
from bothways.tasks import TASKS
from bothways.tasks.base import Task
from bothways.tasks.classify import PROBLEMS
from bothways.text.corpus import CorpusOptions, read_documents
from bothways.text.corpus_report import CorpusReport
from bothways.text.sources import resolve_sources
from bothways.text.tokenizer import Tokenizer
from bothways.train.evaluate import RowSet
from tests.fuzzing.mutations import changed_value, mutated_bytes, mutated_json
from tests.helpers import tiny_config, tiny_tokenizer

TEXTS = ("The router shows a red light.", "“Caf\u00e9”, 3 €; yes?", "a\tb", "🙂 my modem is off\nsince May", "")
ROWS = [
    {"text": text, "label": label, "score": score, "id": number}
    for number, (text, label, score) in enumerate(
        zip(TEXTS * 2, itertools.cycle(("hardware", "billing")), itertools.cycle((0.5, 3.0, 1)), strict=False)
    )
]
CONLL = "Anna\tB-PER\nBerg\tI-PER\nleft\tO\n\n# a comment\nRome\tB-LOC\nis\tO\nold\tO\n"
CONLLU = (
    "# text = It is.\n1\tIt\tit\tPRON\t_\t_\t2\tnsubj\t_\t_\n1-2\tIt's\t_\t_\t_\t_\t_\t_\t_\t_\n"
    "2\tis\tbe\tAUX\t_\t_\t0\troot\t_\t_\n"
)
SQUAD = {
    "version": "v2.0",
    "data": [
        {"title": "router", "paragraphs": [{"context": "A red light means no fibre.", "qas": [
            {"id": "1", "question": "What does a red light mean?", "is_impossible": False,
             "answers": [{"text": "no fibre", "answer_start": 18}]},
            {"id": "2", "question": "Why?", "is_impossible": True, "answers": []},
        ]}]},
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """A damaged file in a folder, and what is then tried: success, or a UserError."""

    description: str
    attempt: Callable[[], object]


def _csv(delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue().encode()


def tables() -> dict[str, bytes]:
    """Valid tables by file name."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), parquet)
    return {
        "t.csv": _csv(","),
        "t.tsv": _csv("\t"),
        "t.jsonl": lines,
        "t.parquet": parquet.getvalue(),
        "t.conll": CONLL.encode(),
        "t.conllu": CONLLU.encode(),
        "t.json": json.dumps(SQUAD).encode(),
        "t.jsonl.gz": gzip.compress(lines),
    }


def corpora() -> dict[str, bytes]:
    """Valid text files by name."""
    text = ("\n\n".join(TEXTS) + "\n").encode()
    return {**tables(), "t.txt": text, "t.md": b"---\ntitle: x\n---\n# A\n\n" + text, "t.txt.gz": gzip.compress(text)}


def task_rows() -> dict[str, list[dict[str, Any]]]:
    """Valid labelled rows by task."""
    text, other = "The router shows a red light.", "My modem is off."
    answer = {"question": "What?", "context": text, "answers": [{"text": "red light", "answer_start": 19}]}
    unanswered = {"question": "Why?", "context": other, "answers": []}
    words = {"words": ["Anna", "left", "Rome"], "labels": ["B-PER", "O", "B-LOC"]}
    spans = {"text": text, "spans": [{"start": 4, "end": 10, "label": "device", "text": "router"}]}
    chats = [{"role": role, "content": text} for role in ("user", "assistant")]
    return {
        "classify": [{"text": text, "pair": other, "label": label} for label in ("a", "b", "a")],
        "answer": [answer, unanswered, answer],
        "tag": [words, words],
        "tag-spans": [spans, {"text": other, "spans": []}],
        "choose": [{"text": text, "choices": ["a", "b"], "label": label} for label in (0, "b", 1)],
        "similar": [{"text": text, "pair": other, "score": score} for score in (0.5, 3, 1.0)],
        "instruct": [{"prompt": text, "response": other}, {"messages": chats}],
    }


FUZZED_FAMILIES = ("roberta", "albert", "mpnet", "modernbert", "gpt2")  # whose configs have most of their own
BASE = "int8"  # a model whose weights another shares
SHAPE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


class Models:
    """Valid model directories, made once: with a head for each kind of task, of several families, a vocabulary with and
    without its tokenizer.json, sentence-transformers' files, and weights as int8, alone and beside a base."""

    def __init__(self, folder: Path) -> None:
        heads: dict[str, Callable[[Encoder], Head]] = {
            "fill": head_builder("pretraining"),
            "classify": head_builder("sequence", 2),
            "tag": head_builder("token", 3),
            "answer": head_builder("span"),
            "similar": lambda encoder: EmbeddingHead(
                TokenPooling(("cls", "mean"), include_prompt=False), True, [Dense(nn.Linear(64, 8), nn.GELU())]
            ),
        }
        for name, head in heads.items():
            checkpoint = Checkpoint(new_model(tiny_config(), head, seed=1), tiny_tokenizer())
            labels = {"classify": ["a", "b"], "tag": ["O", "B-X", "I-X"]}.get(name)
            if name in TASKS:
                task = TASKS[name]
                checkpoint.metadata = task.make(task.Options()).to_json() | ({"labels": labels} if labels else {})
            save_checkpoint(checkpoint, folder / name)
        for family in FUZZED_FAMILIES:
            tokenizer = Tokenizer.train_byte_bpe(lambda: ["the red dog runs, a cat sleeps"] * 3, 280)
            sizes = {"max_position_embeddings": 32, "pad_token_id": 1, "vocab_size": tokenizer.vocab_size}
            config = FAMILIES[family].config.from_size("tiny", **{**SHAPE, **sizes})
            head = head_builder("causal-LM" if family == "gpt2" else "masked-LM")
            save_checkpoint(Checkpoint(new_model(config, head, seed=1), tokenizer), folder / family)
        (folder / "similar" / "config_sentence_transformers.json").write_text(
            json.dumps({"prompts": {"query": "a: "}, "default_prompt_name": "query", "similarity_fn_name": "dot"})
        )
        shutil.copytree(folder / "similar", folder / "foreign")
        number = Checkpoint(new_model(tiny_config(), head_builder("sequence", 1), seed=1), tiny_tokenizer())
        number.metadata = {"labels": ["LABEL_0"], "problem_type": "regression", "activation": "sigmoid"}
        save_checkpoint(number, folder / "cross-encoder")
        (folder / "cross-encoder" / "bothways.json").unlink()
        (folder / "cross-encoder" / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
        shutil.copytree(folder / "fill", folder / "slow")
        for name in ("tokenizer.json", "bothways.json"):
            (folder / "slow" / name).unlink()
            (folder / "foreign" / name).unlink()
        (folder / "slow" / "added_tokens.json").write_text(json.dumps({"<dev>": tiny_tokenizer().vocab_size}))
        (folder / "slow" / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["<dev>"]}))
        config = json.loads((folder / "slow" / "config.json").read_text())
        (folder / "slow" / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] + 1}))
        weights = load_file(folder / "slow" / "model.safetensors")
        for name, tensor in weights.items():
            if name.endswith("word_embeddings.weight") or name == "cls.predictions.bias":
                weights[name] = torch.cat([tensor, tensor[:1]])
        save_file(weights, folder / "slow" / "model.safetensors", metadata={"format": "pt"})
        save_compact(
            Checkpoint(new_model(tiny_config(), heads["fill"], seed=1), tiny_tokenizer()), folder / BASE, "int8"
        )
        save_compact(load_checkpoint(folder / "answer"), folder / "sharing", "int8", BASE)
        self.base = folder / BASE
        self.folders = sorted(folder.iterdir())


def ask(directory: Path, kind: str) -> object:
    """Open a directory and ask what its kind of model is for."""
    model = bw.load(directory, precision="float32")
    if kind == "classify":
        return model.classify(["the red dog"])
    if kind == "tag":
        return model.tag("the red dog")
    if kind in ("answer", "sharing"):
        return model.answer("which dog?", "the red dog runs")
    if kind == "gpt2":
        return model.generate("the red", max_tokens=2)
    if kind in FUZZED_FAMILIES:
        return model.fill(f"the {model.tokenizer.roles['mask']} dog"), model.embed(["a cat"])
    if kind == "cross-encoder":
        return model.rerank("a dog", ["a cat", "the red dog"])
    if kind in ("similar", "foreign"):
        return model.similar("a dog", ["a cat", "the red dog"])
    return model.fill("the [MASK] dog"), model.embed(["a cat"])


def trained_on(table: Any, task: Task, skip_bad: bool) -> object:
    """What `finetune` makes of a table before it trains: its rows, their hash, sequences with targets."""
    found = RowSet.read(table, task, skip_bad, TableOptions()).fitted()
    encoded = found.task.add_targets(found.encode(tiny_tokenizer(), 64), found.rows)
    return found.fingerprint, found.task.collate(encoded)


def damaged_table(folder: Path, rng: random.Random) -> Damage:
    """A table, read as training reads it, and as a large one is read."""
    valid = tables()
    name = rng.choice(list(valid))
    path = folder / name
    path.write_bytes(_damaged(name, valid[name], rng))
    skip_bad = rng.random() < 0.5
    tasks = {".conll": ["tag"], ".conllu": ["tag"], ".json": ["answer"]}.get(path.suffix, ["classify", "similar"])
    task = TASKS[rng.choice(tasks) if rng.random() < 0.9 else rng.choice(list(TASKS))]

    def read_all() -> object:
        return trained_on(path, task.make(task.Options()), skip_bad)

    def read_stream() -> object:
        return list(RowStream(path).rows())

    streams = name.endswith((".csv", ".tsv", ".jsonl", ".parquet", ".gz"))
    return Damage(name, read_stream if streams and rng.random() < 0.5 else read_all)


def damaged_rows(rng: random.Random) -> Damage:
    """Labelled rows of a task, read and encoded as `finetune` does before it trains."""
    name, rows = rng.choice(list(task_rows().items()))
    for _ in range(rng.choice((1, 1, 2, 4))):
        rows = changed_value(rows, rng)
    task, options = TASKS[name.partition("-")[0]], {}
    if name == "classify":
        options = {"problem_type": rng.choice(list(PROBLEMS))}
    chosen = task.make(task.Options(**options))
    skip_bad = rng.random() < 0.5

    return Damage(f"rows of {name}: {str(rows)[:300]!a}", lambda: trained_on(rows, chosen, skip_bad))


def damaged_corpus(folder: Path, rng: random.Random) -> Damage:
    """A text file, read as `prepare` reads it."""
    valid = {name: data for name, data in corpora().items() if not name.endswith((".conll", ".conllu", ".json"))}
    name = rng.choice(list(valid))
    path = folder / name
    path.write_bytes(_damaged(name, valid[name], rng))
    options = CorpusOptions(skip_bad=rng.random() < 0.5, documents=rng.choice(("file", "blank-line")))
    return Damage(name, lambda: list(read_documents(resolve_sources([str(path)]), options, CorpusReport())))


def damaged_model(folder: Path, rng: random.Random, models: Models) -> Damage:
    """A model's directory with one file damaged or gone, opened and asked."""
    directory = folder / "model"
    shutil.rmtree(directory, ignore_errors=True)
    source = rng.choice(models.folders)
    shutil.copytree(source, directory)
    shutil.copytree(models.base, folder / BASE, dirs_exist_ok=True)
    path = rng.choice(sorted(path for path in directory.rglob("*") if path.is_file()))
    if rng.random() < 0.05:
        path.unlink()
    elif path.suffix == ".json" and rng.random() < 0.7:
        path.write_bytes(mutated_json(path.read_text(), rng))
    else:
        path.write_bytes(mutated_bytes(path.read_bytes(), rng))

    return Damage(f"{source.name}/{path.relative_to(directory)}", lambda: ask(directory, source.name))


def _damaged(name: str, data: bytes, rng: random.Random) -> bytes:
    if name.endswith(".json") and rng.random() < 0.6:
        return mutated_json(data.decode(), rng)
    if name.endswith(".gz") and rng.random() < 0.5:
        return gzip.compress(mutated_bytes(gzip.decompress(data), rng))
    return mutated_bytes(data, rng)
