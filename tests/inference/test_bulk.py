"""Tables into files: what a row gets is what it gets alone, and a run that was killed goes on."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.data.stream import RowStream
from bothways.data.tables import TableOptions
from bothways.inference import bulk, jobs
from bothways.inference.jobs import embed_job
from bothways.model.families import head_builder
from bothways.tasks.answer import AnswerTask
from bothways.tasks.classify import ClassifyTask
from bothways.tasks.classify_number import RegressionTask
from bothways.tasks.classify_options import ClassifyOptions
from bothways.tasks.classify_several import MultiLabelTask
from bothways.tasks.tag import TagTask
from bothways.text.extents import ExtentSize
from tests.helpers import Run, tiny_config, tiny_tokenizer

WORDS = ["the", "dog", "sat", "on", "mat", "router"]
ROWS = [{"id": n, "text": " ".join(WORDS[(n * k) % 6] for k in range(1, 2 + n % 9)), "more": [n]} for n in range(700)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = [dict(row) for row in ROWS]
    rows[3]["text"], rows[400]["text"] = None, "  "
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet", row_group_size=150)
    return tmp_path / "t.parquet"


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "part_size", lambda table_bytes: ExtentSize(1, 64))


def test_rows_in_order_with_their_columns_and_the_bad_ones_aside(
    table: Path, pretrained: Path, tmp_path: Path, bothways: Run
) -> None:
    model = bw.load(pretrained)
    good = [row for row in ROWS if row["id"] not in (3, 400)]
    expected = model.embed([row["text"] for row in good])
    for name in ("out.parquet", "out.jsonl"):
        code, out, _ = bothways("embed", pretrained, "--in", table, "--out", tmp_path / name)
        assert code == 0
        assert "698 rows" in out
        if name.endswith("jsonl"):
            found = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        else:
            found = pq.read_table(tmp_path / name).to_pylist()
        assert [row["id"] for row in found] == [row["id"] for row in good]
        assert [row["more"] for row in found] == [row["more"] for row in good]
        np.testing.assert_allclose(np.array([row["embedding"] for row in found]), expected, atol=1e-5)
        bad = [json.loads(line) for line in (tmp_path / f"{name}.bad.jsonl").read_text().splitlines()]
        assert [one["row"].rpartition(": ")[2] for one in bad] == ["row 4", "row 401"]
        assert bad[0]["reason"] == "column 'text' is missing"
        assert not (tmp_path / f"{name}.parts").exists()
    assert pq.read_schema(tmp_path / "out.parquet").field("embedding").type == pa.list_(pa.float32(), 32)


def test_csv_has_what_jsonl_has(table: Path, pretrained: Path, tmp_path: Path, bothways: Run) -> None:
    for name in ("o.CSV", "o.jsonl"):
        code, said, err = bothways("embed", pretrained, "--in", table, "--out", tmp_path / name)
        assert code == 0, err
        assert "698 rows" in said
        assert "row 4: column 'text' is missing" in said  # the first bad row's reason, so the cure is seen
    expected = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    content = (tmp_path / "o.CSV").read_bytes()
    assert content.startswith(b"\xef\xbb\xbfid,text,more,embedding\r\n")  # once, though there are several parts
    found = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert [(int(row["id"]), row["text"], json.loads(row["more"])) for row in found] == [
        (row["id"], row["text"], row["more"]) for row in expected
    ]
    vectors = [json.loads(row["embedding"]) for row in found]
    np.testing.assert_allclose(vectors, [row["embedding"] for row in expected], atol=1e-5)
    assert (tmp_path / "o.CSV.bad.jsonl").read_text() == (tmp_path / "o.jsonl.bad.jsonl").read_text()


def test_csv_sets_rows_with_further_columns_aside(pretrained: Path, tmp_path: Path, bothways: Run) -> None:
    (tmp_path / "t.jsonl").write_text(
        '{"text": "the \\"dog\\",\\nsat", "ok": true}\n' * 1024 + '{"text": "on", "new": 1}\n'
    )
    code, _, err = bothways("embed", pretrained, "--in", tmp_path / "t.jsonl", "--out", tmp_path / "o.csv")
    assert code == 0, err
    found = list(csv.DictReader(io.StringIO((tmp_path / "o.csv").read_text("utf-8-sig"), newline="")))
    assert (len(found), found[0]["text"], found[0]["ok"]) == (1024, 'the "dog",\nsat', "true")
    assert "column 'new' is not in the first rows" in (tmp_path / "o.csv.bad.jsonl").read_text()


def test_tables_that_are_read_as_a_whole(tmp_path: Path, bothways: Run) -> None:
    saved(head_builder("span"), AnswerTask(), tmp_path / "answer")
    questions = [{"id": str(n), "question": "who sat", "answers": []} for n in range(2)]
    squad = {"data": [{"title": "a", "paragraphs": [{"context": "the dog sat", "qas": questions}]}]}
    (tmp_path / "q.JSON").write_text(json.dumps(squad))
    (tmp_path / "words.txt").write_text("the\tO\ndog\tB-x\n\nsat\tO\n\n")
    code, _, err = bothways("answer", tmp_path / "answer", "--in", tmp_path / "q.JSON", "--out", tmp_path / "a.jsonl")
    assert code == 0, err
    found = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [(row["id"], row["context"]) for row in found] == [("0", "the dog sat"), ("1", "the dog sat")]

    saved(head_builder("token", 3), TagTask(labels=("O", "B-x", "I-x")), tmp_path / "tag")
    given = ["tag", tmp_path / "tag", "--in", tmp_path / "words.txt", "--format", "conll"]
    code, _, err = bothways(*given, "--out", tmp_path / "t.jsonl")
    assert code == 0, err
    found = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [row["words"] for row in found] == [["the", "dog"], ["sat"]]
    code, _, err = bothways("answer", tmp_path / "answer", "who", "the dog", "--format", "squad")
    assert (code, "--format: is of a table after --in" in err) == (2, True)
    code, _, err = bothways("tag", tmp_path / "tag", "the dog", "--encoding", "cp1252")
    assert (code, "are of a file after --in" in err) == (2, True)


def test_a_bulk_table_in_another_encoding(pretrained: Path, tmp_path: Path, bothways: Run) -> None:
    (tmp_path / "t.csv").write_bytes("text\nthe dög\n".encode("cp1252"))
    command = ["embed", pretrained, "--in", tmp_path / "t.csv", "--out", tmp_path / "o.jsonl"]
    code, _, err = bothways(*command)
    assert (code, "--encoding cp1252 reads it" in err) == (2, True)
    code, _, err = bothways(*command, "--encoding", "cp1252")
    assert code == 0, err
    assert json.loads((tmp_path / "o.jsonl").read_text())["text"] == "the dög"
    assert RowStream(tmp_path / "t.csv", options=TableOptions("csv", encoding="cp1252")).reading == {
        "format": "csv",
        "encoding": "cp1252",
    }  # of a run's manifest, so that no run goes on with another


def test_a_killed_run_goes_on_and_repeats_nothing(table: Path, pretrained: Path, tmp_path: Path, bothways: Run) -> None:
    out = tmp_path / "out.parquet"
    script = (
        "import os, signal, sys\n"
        "from bothways.cli import main\n"
        "from bothways import parts\n"
        "from bothways.inference import bulk\n"
        "from bothways.text.extents import ExtentSize\n"
        "bulk.part_size = lambda table_bytes: ExtentSize(1, 64)\n"
        "write, left = parts.Parts.write, [4]\n"
        "def kill(self, *arguments):\n"
        "    left[0] -= 1\n"
        "    if not left[0]:\n"
        "        (self.folder / '00000004.parquet').write_bytes(b'half')\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(self, *arguments)\n"
        "parts.Parts.write = kill\n"
        "main(sys.argv[1:])\n"
    )
    command = ["embed", str(pretrained), "--in", str(table), "--out", str(out)]
    killed = subprocess.run([sys.executable, "-c", script, *command], env=os.environ, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    before = sorted(path.name for path in (tmp_path / "out.parquet.parts").glob("*.json"))
    assert len(before) == 4, "three parts and the manifest"

    code, said, _ = bothways("embed", pretrained, "--in", table, "--out", tmp_path / "out.parquet", "--no-normalize")
    assert code == 2
    code, said, _ = bothways(*command)
    assert code == 0
    assert "698 rows, 150 of them by an earlier run" in said
    found = pq.read_table(out)
    assert found["id"].to_pylist() == [row["id"] for row in ROWS if row["id"] not in (3, 400)]
    bothways("embed", pretrained, "--in", table, "--out", tmp_path / "whole.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert (tmp_path / "out.parquet.bad.jsonl").read_text() == (tmp_path / "whole.parquet.bad.jsonl").read_text()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".jsonl.gz", ".parquet"])
def test_shares_in_any_order_and_twice_give_one_file(
    suffix: str, table: Path, pretrained: Path, tmp_path: Path, bothways: Run
) -> None:
    rows, source = pq.read_table(table).to_pylist(), tmp_path / f"s{suffix}"
    if suffix == ".csv":
        with source.open("w", newline="") as file:
            csv.writer(file).writerows([["id", "text"], *([row["id"], f'{row["text"]}\n"a"'] for row in rows)])
    elif suffix == ".parquet":
        source = table
    else:
        opener: Any = gzip.open if suffix.endswith(".gz") else open
        with opener(source, "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    out_suffix = suffix.removesuffix(".gz")
    given = ["embed", pretrained, "--in", source]
    assert bothways(*given, "--out", tmp_path / f"whole{out_suffix}")[0] == 0
    out = tmp_path / f"shares{out_suffix}"
    for share in (5, 2, 7, 2, 1, 4, 3):
        code, said, err = bothways(*given, "--out", out, "--parts", f"{share}/7")
        assert code == 0, err
    assert f"when all are: bothways join {out}" in said
    code, said, err = bothways("join", out)
    assert code == 2
    assert f"bothways embed {pretrained} --in {source} --out {out} --parts 6/" in said
    assert bothways(*said.splitlines()[0].split()[1:])[0] == 0
    for _ in range(2):
        code, said, err = bothways(*given, "--out", out, "--parts", "6/7")
    assert f"next: bothways join {out}" in said
    code, said, err = bothways("join", out)
    assert code == 0, err
    assert out.read_bytes() == (tmp_path / f"whole{out_suffix}").read_bytes()
    bad = [path.with_name(f"{path.name}.bad.jsonl") for path in (out, tmp_path / f"whole{out_suffix}")]
    assert (bad[0].read_text() if bad[0].exists() else None) == (bad[1].read_text() if bad[1].exists() else None)
    code, _, err = bothways("embed", pretrained, "the dog", "--parts", "1/7")
    assert (code, "--on and --parts: are of a table after --in" in err) == (2, True)


def test_a_run_killed_while_its_parts_become_one_file_only_does_that_again(
    table: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, source, out = bw.load(pretrained), RowStream(table), tmp_path / "out.parquet"
    job = embed_job(model, source.columns, "text", True)
    output = bulk.open_output(job, source, out)
    bulk.run_bulk(job, source, output)
    monkeypatch.setattr(jobs, "sequence_vectors", None)
    output = bulk.open_output(job, source, out)
    bulk.run_bulk(job, source, output)
    assert output.merge().resumed == 700
    assert len(pq.read_table(out)) == 698


def test_no_part_is_made_of_another_table(table: Path, pretrained: Path, tmp_path: Path) -> None:
    model, source, out = bw.load(pretrained), RowStream(table), tmp_path / "out.parquet"
    job = embed_job(model, source.columns, "text", True)
    bulk.open_output(job, source, out)
    assert bulk.open_table_parts(out, lambda: (job, RowStream(table)))(2) == 64
    pq.write_table(pq.read_table(table).slice(1), table)  # as another machine may have it
    with pytest.raises(bw.UserError, match=r"t\.parquet has changed since"):
        bulk.open_table_parts(out, lambda: (job, RowStream(table)))


def test_columns_of_a_parquet_are_carried_as_they_are(pretrained: Path, tmp_path: Path, bothways: Run) -> None:
    columns = {
        "time": pa.array([1, None, 3], pa.time64("ns")),
        "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
        "nested": pa.array([{"a": [1]}, {"a": None}, None]),
    }
    pq.write_table(pa.table({"text": ["the", None, "mat"], **columns}), tmp_path / "t.parquet")
    code, _, err = bothways("embed", pretrained, "--in", tmp_path / "t.parquet", "--out", tmp_path / "o.parquet")
    assert code == 0, err
    found = pq.read_table(tmp_path / "o.parquet")
    expected = pq.read_table(tmp_path / "t.parquet").take([0, 2])
    assert found.select(expected.column_names).equals(expected)


def test_what_a_kill_at_the_very_end_leaves(table: Path, pretrained: Path, tmp_path: Path, bothways: Run) -> None:
    command = ["embed", pretrained, "--in", table, "--out", tmp_path / "o.parquet"]
    (tmp_path / "o.parquet.parts").mkdir()
    (tmp_path / "o.parquet.parts" / "00000001.json").write_text("{}")
    code, _, err = bothways(*command)
    assert code == 2
    parts = tmp_path / "o.parquet.parts"
    assert f"is not empty and not of a run (00000001.json); remove {parts}" in err
    parts.rename(tmp_path / ".o.parquet.done")
    assert bothways(*command)[0] == 0
    assert not (tmp_path / ".o.parquet.done").exists()
    (tmp_path / "o.parquet").unlink()
    code, _, err = bothways(*command)
    assert code == 2, "the side file of before would be lost"
    assert "o.parquet.bad.jsonl is there already" in err


def saved(head: Any, task: Any, folder: Path) -> Path:
    model = new_model(tiny_config(), head, seed=3)
    save_checkpoint(Checkpoint(model, tiny_tokenizer(), task.to_json()), folder)
    return folder


def test_every_task_writes_what_it_predicts(tmp_path: Path, bothways: Run) -> None:
    texts = [row["text"] for row in ROWS[:90]]
    pq.write_table(pa.table({"text": texts, "question": ["who sat"] * 90, "context": texts}), tmp_path / "t.parquet")
    labels = ("a", "b", "c")
    for name, kind in (("single_label_classification", ClassifyTask), ("multi_label_classification", MultiLabelTask)):
        task: Any = kind(options=ClassifyOptions(problem_type=name), labels=labels)  # type: ignore[arg-type]
        model = bw.load(saved(head_builder("sequence", 3), task, tmp_path / name))
        found = run(bothways, "classify", tmp_path / name, tmp_path)
        single = name.startswith("single")
        expected = [one.label if single else one.labels for one in model.classify(texts)]
        assert [row["predicted"] for row in found] == expected
    regression = RegressionTask(options=ClassifyOptions(problem_type="regression"), labels=("LABEL_0",))
    model = bw.load(saved(head_builder("sequence", 1), regression, tmp_path / "number"))
    values = [row["predicted"] for row in run(bothways, "classify", tmp_path / "number", tmp_path)]
    np.testing.assert_allclose(values, [one.value for one in model.classify(texts)], atol=1e-5)

    tags = TagTask(labels=("O", "B-x", "I-x"))
    model = bw.load(saved(head_builder("token", 3), tags, tmp_path / "tag"))
    entities = [row["entities"] for row in run(bothways, "tag", tmp_path / "tag", tmp_path)]
    for given, wanted in zip(entities, model.tag(texts), strict=True):
        assert [(one["label"], one["start"], one["end"]) for one in given] == [
            (one.label, one.start, one.end)
            for one in wanted  # type: ignore[union-attr]
        ]

    model = bw.load(saved(head_builder("span"), AnswerTask(), tmp_path / "answer"))
    answers = run(bothways, "answer", tmp_path / "answer", tmp_path)
    for given, text in zip(answers[:20], texts[:20], strict=True):
        wanted = model.answer("who sat", text)
        assert (given["predicted"], given["start"], given["end"]) == (wanted.text, wanted.start, wanted.end)


def run(bothways: Run, verb: str, model: Path, folder: Path) -> list[dict[str, Any]]:
    out = folder / f"{model.name}.parquet"
    code, _, err = bothways(verb, model, "--in", folder / "t.parquet", "--out", out)
    assert code == 0, err
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows


def test_rows_of_jsonl_that_do_not_fit_the_first_ones_are_set_aside(
    pretrained: Path, tmp_path: Path, bothways: Run
) -> None:
    rows: list[dict[str, Any]] = [{"id": n, "text": "the dog", "nested": {"é": [n]}} for n in range(1100)]
    rows += [{"id": "x", "text": "the"}, {"id": 7, "text": "the", "new": 1}, {"id": 2.5, "text": "the"}]
    rows += [{"id": 8, "text": "the", "embedding": 1}, {"id": 9, "text": "mat", "nested": None}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, said, _ = bothways("embed", pretrained, "--in", tmp_path / "t.jsonl", "--out", tmp_path / "o.parquet")
    assert code == 0
    assert "1,101 rows" in said
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "o.parquet.bad.jsonl").read_text().splitlines()]
    assert sorted(reasons) == [
        "column 'id' is '2.5', in the first rows it is int64",
        "column 'id' is 'x', in the first rows it is int64",
        "column 'new' is not in the first rows",
        "has a column 'embedding', which is the name of a result",
    ]
    assert pq.read_table(tmp_path / "o.parquet")["nested"].to_pylist()[-2:] == ['{"é": [1099]}', None]


def test_what_is_refused_before_anything_is_done(table: Path, pretrained: Path, tmp_path: Path, bothways: Run) -> None:
    pq.write_table(pa.table({"text": ["a"], "embedding": [1]}), tmp_path / "has.parquet")
    (tmp_path / "there.parquet").write_bytes(b"kept")
    for arguments, complaint in (
        (
            ["--in", table, "--out", tmp_path / "there.parquet"],
            "is there already; --overwrite replaces it, or choose another --out",
        ),
        (["--in", tmp_path / "has.parquet", "--out", tmp_path / "o.parquet"], "has a column 'embedding', which is"),
        (
            ["--in", table, "--out", tmp_path / "o.parquet", "--text-column", "txt"],
            "no column 'txt', did you mean 'text'",
        ),
        (["--in", table, "--out", tmp_path / "o.xlsx"], "ends in .npy or .parquet or .jsonl"),
        (["--out", tmp_path / "o.parquet"], "needs a table after --in"),
        (["a text", "--in", table, "--out", tmp_path / "o.parquet"], "not for texts as arguments"),
        (["--in", table, "--out", tmp_path / "o.parquet", "--precision", "int4"], "int4"),
    ):
        code, _, err = bothways("embed", pretrained, *arguments)
        assert code == 2, arguments
        assert complaint in err
    assert (tmp_path / "there.parquet").read_bytes() == b"kept"
    assert not list(tmp_path.glob("*.parts"))
