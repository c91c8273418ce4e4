"""Tables for the shipped models from a folder of data sets, and the commands that train on them.

    python tools/build_shipped.py DATA --out FOLDER [--start ENCODER] [--model ENCODER] [--base NAME]

The same data gives the same bytes. DATA holds the public sets by these names; none under non-commercial terms is read:

- mini-distilled: texts of text-english (public domain, Apache-2.0, CC BY-SA, CC BY 2.5) and how the articles of
  wikipedia begin (CC BY-SA 3.0), without the last documents of each file, on which benchmarks/quality.py measures;
- answers: squad (v2.0, CC BY-SA 4.0), qa-qed (CC BY-SA 3.0), qa-fairytale (Apache-2.0), qa-policy (MIT), and of qa-qamr
  (MIT; its questions are near-paraphrases of each other) a sample; then the help desk in bothways/samples (Apache-2.0);
- entities: wnut17 (CC BY 4.0);
- sentence-vectors: entailed pairs of pairs-nli (no licence stated), pairs-medquad (CC BY 4.0), titles of Wikinews with
  how their texts begin (CC BY 2.5), then scores of pairs-sts12-16 (parts CC BY-SA 3.0) without those of STSbenchmark's
  dev and test; measured on STSbenchmark's dev;
- writer: novels, tales, Wikipedia and Wikinews of text-english (public domain, Apache-2.0, CC BY-SA, CC BY 2.5).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bothways.errors import UserError
from bothways.files import read_json, write_text
from bothways.text.lines import decompressed

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
QUESTION_SETS = {  # of DATA: the files to train and to measure on
    "squad": ("squad/train-v2.0.json", "squad/dev-v2.0.json"),
    "qed": ("qa-qed/train.json", "qa-qed/dev.json"),
    "fairytale": ("qa-fairytale/train.json", "qa-fairytale/dev.json"),
    "policy": ("qa-policy/train.json", "qa-policy/dev.json"),
    "qamr": ("qa-qamr/train.json", "qa-qamr/dev.json"),
}
QAMR_QUESTIONS = 4000  # of 17,892: some 36 are of one sentence, and more of them teach the same
DEV_QUESTIONS = 400  # of each set, to measure on after every epoch
LONGEST_CONTEXT = 4000  # characters; qed has tables of tens of thousands
STS_KEPT_BACK = ("dev", "test")  # of STSbenchmark, on which the vectors are measured
NEWS_CHARACTERS = 600  # of a news text beside its title: as much as 128 tokens hold
WRITER_TEXTS = ("novels-eltec-en", "fairytales", "wikipedia-en-2018", "wikinews-en")
ENCODER_TEXTS = {  # files of DATA, and how many characters of each document are read, for None all
    **{f"wikipedia/part-{number}.jsonl.zst": 2500 for number in range(4)},  # an article begins with what is known best
    **{f"text-english/{name}.jsonl.zst": None for name in ("fairytales", "wikipedia-en-2018", "wikinews-en")},
    "text-english/dialogues-sgd.jsonl.zst": None,
    "text-english/novels-eltec-en.jsonl.zst": 8000,  # chapters
}
START = "sentence-transformers/all-MiniLM-L6-v2"

Rows = Iterable[dict[str, Any]]


def sample_order(key: str) -> str:
    """What rows are sorted by for a sample: the same everywhere, and of no relation to what they say."""
    return hashlib.sha256(key.encode()).hexdigest()


def questions(path: Path, name: str, number: int | None = None) -> tuple[list[dict[str, Any]], int]:
    """The articles of a SQuAD file, ids with the set's name before them, and how many questions were left out as their
    context is too long. number: of questions in a sample; all by default."""
    articles = read_json(path)["data"]
    ids = [f"{name}-{qa['id']}" for article in articles for part in article["paragraphs"] for qa in part["qas"]]
    chosen = set(sorted(ids, key=sample_order)[:number])
    kept, left_out = [], 0
    for article in articles:
        paragraphs = []
        for part in article["paragraphs"]:
            qas = [{**qa, "id": f"{name}-{qa['id']}"} for qa in part["qas"] if f"{name}-{qa['id']}" in chosen]
            if len(part["context"]) > LONGEST_CONTEXT:
                left_out += len(qas)
            elif qas:
                paragraphs.append({"context": part["context"], "qas": qas})
        if paragraphs:
            kept.append({"title": article["title"], "paragraphs": paragraphs})
    return kept, left_out


def build_texts(data: Path, out: Path) -> Iterator[str]:
    """Write texts/, a file for each of `ENCODER_TEXTS`. Yields what is to be said of them."""
    sys.path.insert(0, str(BENCHMARKS))
    from held_out import training_texts

    for name, characters in ENCODER_TEXTS.items():
        texts = [{"text": text[:characters]} for text in training_texts(data, [name])]
        path = out / "texts" / name.replace("/", "-").removesuffix(".zst")
        path.parent.mkdir(exist_ok=True)
        _write_rows(path, texts)
        yield f"texts: {len(texts):,} documents of {name}, {path.stat().st_size / 1e6:.0f} MB"


def build_answers(data: Path, out: Path) -> Iterator[str]:
    """Write answers-train.json and answers-dev.json, in SQuAD's form. Yields what is to be said of them."""
    for split, place in (("train", 0), ("dev", 1)):
        merged: list[dict[str, Any]] = []
        for name, files in QUESTION_SETS.items():
            number = (QAMR_QUESTIONS if name == "qamr" else None) if split == "train" else DEV_QUESTIONS
            articles, left_out = questions(data / files[place], name, number)
            merged += articles
            count = sum(len(part["qas"]) for article in articles for part in article["paragraphs"])
            yield f"answers-{split}: {count:,} questions of {name}" + (f", {left_out} left out" if left_out else "")
        write_text(out / f"answers-{split}.json", json.dumps({"version": "v2.0", "data": merged}) + "\n")


def build_entities(data: Path, out: Path) -> Iterator[str]:
    """Write entities-train.conll and entities-dev.conll. Yields what is to be said of them."""
    for split in ("train", "dev"):
        text = (data / "wnut17" / f"{split}.conll").read_text(encoding="utf-8")
        write_text(out / f"entities-{split}.conll", text)
        ends = sum(not line.strip() for line in text.splitlines())
        yield f"entities-{split}: {ends:,} sentences"


def build_vectors(data: Path, out: Path) -> Iterator[str]:
    """Write vectors-pairs.jsonl, vectors-scores.jsonl and vectors-dev.jsonl. Yields what is to be said of them."""
    sources = {
        "pairs-nli": _entailed(data / "pairs-nli"),
        "pairs-medquad": _medical(data / "pairs-medquad" / "train.jsonl.zst"),
        "wikinews": _news(data / "text-english" / "wikinews-en.jsonl.zst"),
    }
    pairs: dict[tuple[str, str], dict[str, str]] = {}
    for name, rows in sources.items():
        before = len(pairs)
        pairs.update({(row["text"], row["pair"]): row for row in rows})
        yield f"vectors-pairs: {len(pairs) - before:,} pairs of {name}"
    _write_rows(out / "vectors-pairs.jsonl", pairs.values())
    known = list(_json_rows(data / "pairs-sts12-16" / "sts12-16.jsonl"))
    free = [row for row in known if row["in_stsb"] not in STS_KEPT_BACK]
    scored = [{"text": row["sentence1"], "pair": row["sentence2"], "score": float(row["score"])} for row in free]
    _write_rows(out / "vectors-scores.jsonl", scored)
    yield f"vectors-scores: {len(scored):,} pairs, without {len(known) - len(free):,} of STSbenchmark's dev and test"
    with (data / "stsbenchmark" / "sts-dev.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    dev = [{"text": line[5], "pair": line[6], "score": float(line[4])} for line in lines]
    _write_rows(out / "vectors-dev.jsonl", dev)
    yield f"vectors-dev: {len(dev):,} pairs"


def _entailed(folder: Path) -> Iterator[dict[str, str]]:
    """Premises with what follows from them."""
    for name in ("mnli", "xnli"):
        for row in _json_rows(folder / f"{name}.train.jsonl"):
            if row["label"] == "entailment":
                yield {"text": row["premise"], "pair": row["hypothesis"]}


def _medical(path: Path) -> Iterator[dict[str, str]]:
    """Questions with their answers."""
    return ({"text": row["query"], "pair": row["positive"][:NEWS_CHARACTERS]} for row in _json_rows(path))


def _news(path: Path) -> Iterator[dict[str, str]]:
    """Titles with how their texts begin."""
    for row in _json_rows(path):
        begin = " ".join(row["text"].split())[:NEWS_CHARACTERS]
        if row["title"].strip() and begin:
            yield {"text": row["title"], "pair": begin}


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of JSON lines, also as .zst."""
    with path.open("rb") as raw, decompressed(raw, path) as stream:
        yield from (json.loads(line) for line in io.TextIOWrapper(stream, encoding="utf-8"))


def _write_rows(path: Path, rows: Rows) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def commands(data: Path, out: Path, start: str, model: str, base: str) -> list[str]:
    """What trains the models and ships them, in order; training goes on where it was if it is given again.

    start: what the encoder begins from. base: the shipped model that is `model`, whose weights the others leave out
    where they kept them."""
    helpdesk, vectors = "bothways/samples/helpdesk", "sentence-vectors"
    texts = " ".join(str(data / "text-english" / f"{name}.jsonl.zst") for name in WRITER_TEXTS)

    def tune(task: str, recipe: str, begin: str, table: str, dev: str, run: str) -> str:
        tables = f"--train {table} --eval {dev}"
        return f"bothways finetune {task} --recipe {recipe} --model {begin} {tables} --out {out / run}"

    def at(name: str) -> str:
        return str(out / name)

    return [
        f"bothways prepare {out / 'texts'} --tokenizer {start} --out {out / 'store'}",
        f"bothways pretrain {out / 'store'} --recipe mini-distilled --model {start} --out {out / 'mini-distilled'}",
        f"python tools/ship_model.py {out / 'mini-distilled'} --name mini-distilled --storage int8",
        tune("answer", "answers", model, at("answers-train.json"), at("answers-dev.json"), "answers-general"),
        tune("answer", "answers", at("answers-general"), f"{helpdesk}/questions-train.json",
             f"{helpdesk}/questions-test.json", "answers"),
        tune("tag", "entities", model, at("entities-train.conll"), at("entities-dev.conll"), "entities"),
        tune("similar", vectors, model, at("vectors-pairs.jsonl"), at("vectors-dev.jsonl"), "vectors-paired"),
        tune("similar", vectors, at("vectors-paired"), at("vectors-scores.jsonl"), at("vectors-dev.jsonl"), vectors),
        f"bothways tokenizer {texts} --recipe writer --out {out / 'writer-vocabulary'}",
        f"bothways prepare {texts} --tokenizer {out / 'writer-vocabulary'} --out {out / 'writer-store'}",
        f"bothways pretrain {out / 'writer-store'} --recipe writer --out {out / 'writer'}",
        *(f"python tools/ship_model.py {out / name} --name {name} --storage int8 --base {base}"
          for name in ("answers", "entities", "sentence-vectors")),
        f"python tools/ship_model.py {out / 'writer'} --name writer --storage int8",
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", default=START, help="all-MiniLM-L6-v2, which the encoder begins from")
    parser.add_argument("--model", help="the encoder: a run, a directory or a shipped model; by default that of --base")
    parser.add_argument("--base", default="mini-distilled", help="the shipped encoder, of which --model is the run")
    given = parser.parse_args(arguments)
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        for build in (build_texts, build_answers, build_entities, build_vectors):
            for line in build(given.data, given.out):
                print(f"# {line}")
    except (UserError, OSError) as error:
        print(f"build_shipped: {error}", file=sys.stderr)
        return 2
    print("\n".join(commands(given.data, given.out, given.start, given.model or given.base, given.base)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
