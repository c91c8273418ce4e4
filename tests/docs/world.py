"""The files and models that the pages speak of, under the names they have there: small ones, made once.

Text and rows are the package's own samples, an invented help desk. Models are tiny, trained until they know the few
rows that the pages ask about, so that a shown label is the label.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import bothways as bw

SAMPLES = Path(str(resources.files("bothways") / "samples" / "helpdesk"))
TINY: dict[str, Any] = {"size": "tiny", "steps": 4, "tokens_per_step": 512, "sequence_length": 64, "quiet": True}
LEARN: dict[str, Any] = {"epochs": 40, "batch_size": 16, "lr": 3e-3, "dropout": 0.0, "quiet": True}

# What the pages ask, and what the tiny models have been told of it.
TICKETS = [
    ("No light on my router", "hardware"),
    ("No light on my router since this morning", "hardware"),
    ("The lamp of the box is dark", "hardware"),
    ("My bill is wrong", "billing"),
    ("You charged me twice this month", "billing"),
    ("The app does not let me log in", "software"),
    ("The update has failed", "software"),
]
ENTITIES = [
    ("The router stopped on 3 May", {"router": "device", "3 May": "date"}),
    ("My box is dark since Monday", {"box": "device", "Monday": "date"}),
    ("Why do I pay £65 for the basic plan?", {"£65": "amount", "basic": "plan"}),
]
ARTICLE = (
    "A green light means that all is well. A red light means that the fibre is unplugged. "
    "Push the plug in until it clicks."
)
QUESTIONS = [
    ("What does a red light mean?", "the fibre is unplugged"),
    ("What does a green light mean?", "all is well"),
]

# Names of the hub that pages give, and which of the models stands in for each.
FROM_THE_HUB = {
    "google-bert/bert-base-uncased": "run",
    "google-bert/bert-base-cased": "run",
    "sentence-transformers/all-MiniLM-L6-v2": "alike",
    "cross-encoder/ms-marco-MiniLM-L6-v2": "entailment",
    "distilbert/distilbert-base-cased-distilled-squad": "help",
}


def make_world(folder: Path) -> None:
    """Write all files, then the vocabulary, the store and the models."""
    write_texts(folder)
    write_tables(folder)
    tokenizer = bw.train_tokenizer(str(folder / "texts"), folder / "vocabulary", vocab_size=2000, quiet=True)
    store = bw.prepare(str(folder / "texts"), tokenizer, folder / "store", validation=0.1, workers=1, quiet=True)
    bw.pretrain(store, folder / "run", **TINY, checkpoint_every=2, keep_checkpoints=2)
    bw.pretrain(store, folder / "lm", objective="causal", **TINY)
    for name in ("base", "large", "TEACHER"):
        shutil.copytree(folder / "run" / "model", folder / name)
    run = str(folder / "run")
    bw.finetune("classify", run, folder / "train.csv", folder / "test.csv", folder / "tickets", **LEARN)
    bw.finetune("tag", run, folder / "train.conll", folder / "dev.conll", folder / "entities", **LEARN)
    bw.finetune("answer", run, folder / "questions.json", folder / "dev.json", folder / "help", **LEARN)
    once = {**LEARN, "epochs": 1}
    bw.finetune("similar", run, folder / "pairs.jsonl", None, folder / "alike", **once)
    bw.finetune("classify", run, folder / "entailment.csv", None, folder / "entailment", pair_column="pair", **once)
    for name, model in FROM_THE_HUB.items():
        shutil.copytree(folder / model / "model", folder / name)
    bw.finetune("instruct", folder / "lm", folder / "talk.jsonl", None, folder / "helper", **once)


def write_texts(folder: Path) -> None:
    articles = sorted({row["context"] for row in squad("train") + squad("test")})
    (folder / "texts").mkdir(parents=True)
    for number, article in enumerate(articles[:40]):
        (folder / "texts" / f"{number:02}.txt").write_text(article + "\n", encoding="utf-8")
    lines = [text for text, _ in TICKETS] + ["The wifi is slow", "Internet is slow in the evening"]
    write_lines(folder / "tickets.txt", lines)
    write_lines(folder / "lines.txt", lines)
    write_lines(folder / "sentences.txt", ["The router shows a red [MASK].", "My [MASK] is wrong."])
    write_lines(folder / "questions.txt", ["My router has no light", "Where is my bill?"])
    write_lines(folder / "prompts.txt", ["The router", "My bill"])
    write_lines(folder / "plays.txt", ["My lord, the king is here.", "", "Then let him in.", ""] * 12)
    write_lines(folder / "router.txt", [ARTICLE])
    (folder / "manuals").mkdir()
    write_lines(folder / "manuals" / "router.txt", [ARTICLE])
    write_lines(folder / "manuals" / "billing.txt", ["Your bill comes on the first of the month, by mail."])


def write_tables(folder: Path) -> None:
    tickets = [{"text": text, "label": label} for text, label in TICKETS]
    for name, rows in (("train", tickets * 2), ("test", tickets), ("new", tickets), ("tickets", tickets)):
        write_csv(folder / f"{name}.csv", rows)
        write_json_lines(folder / f"{name}.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(tickets), folder / "all.parquet")
    pairs = read_json_lines(SAMPLES / "pairs-train.jsonl")[:16]
    write_json_lines(folder / "pairs.jsonl", pairs)
    labels = ("entailment", "neutral", "contradiction")
    entailment = [{**row, "label": labels[k % 3]} for k, row in enumerate(pairs[:6])]
    write_csv(folder / "entailment.csv", [{key: row[key] for key in ("text", "pair", "label")} for row in entailment])
    talk = read_json_lines(SAMPLES / "conversations-train.jsonl")[:8]
    write_json_lines(folder / "talk.jsonl", talk)
    write_json_lines(folder / "dev.jsonl", talk)
    paragraph = {"context": ARTICLE, "qas": [answered(k, *asked) for k, asked in enumerate(QUESTIONS)]}
    document = {"version": "1.1", "data": [{"title": "router", "paragraphs": [paragraph]}]}
    for name in ("questions.json", "dev.json", "train.json"):
        (folder / name).write_text(json.dumps(document), encoding="utf-8")
    for name in ("train.conll", "dev.conll"):
        (folder / name).write_text("\n\n".join(map(conll, ENTITIES)) + "\n", encoding="utf-8")
    write_json_lines(folder / "spans.jsonl", read_json_lines(SAMPLES / "entities-train.jsonl")[:12])


def squad(part: str) -> list[dict[str, Any]]:
    data = json.loads((SAMPLES / f"questions-{part}.json").read_text(encoding="utf-8"))["data"]
    return [paragraph for article in data for paragraph in article["paragraphs"]]


def answered(number: int, question: str, answer: str) -> dict[str, Any]:
    answers = [{"text": answer, "answer_start": ARTICLE.index(answer)}]
    return {"id": str(number), "question": question, "answers": answers}


def conll(sentence: tuple[str, Mapping[str, str]]) -> str:
    """A sentence in columns: a word and its label a line."""
    text, entities = sentence
    labels: dict[int, str] = {}
    words = text.replace("?", " ?").split()
    for entity, label in entities.items():
        parts = entity.split()
        begin = next(k for k in range(len(words)) if words[k : k + len(parts)] == parts)
        labels |= {begin + k: ("I-" if k else "B-") + label for k in range(len(parts))}
    return "\n".join(f"{word}\t{labels.get(k, 'O')}" for k, word in enumerate(words))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_lines(path, [json.dumps(row) for row in rows])


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    quoted = [",".join('"' + str(value).replace('"', '""') + '"' for value in row.values()) for row in rows]
    write_lines(path, [",".join(rows[0]), *quoted])
