"""All benchmarks in one run: what there is no time for, what fails, and the tables that are left on the page."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def runner(scripts_folder: Path) -> ModuleType:
    return importlib.import_module("all")


RECORD = {
    "processor": "Some EPYC, 2 threads", "instructions": "AVX2", "precision": "float32", "header": ["", "tokens/s"],
    "rows": [["peer", 1234.5678], ["Bothways", 2000]],
}  # fmt: skip


def test_every_part_is_a_script_that_is_there(runner: ModuleType, scripts_folder: Path) -> None:
    assert all((scripts_folder / part.command[0]).is_file() for part in runner.PARTS)
    assert all("show(" in (scripts_folder / part.command[0]).read_text() for part in runner.PARTS)


def test_the_page_keeps_what_was_not_measured_now(runner: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{runner.BEGIN}\n{runner.END}\n\nbehind\n")
    runner.write_tables(page, {"one": RECORD, "two": RECORD})
    assert (
        "### one\n\n| processor | instructions | precision |  | tokens/s |\n|---|---|---|---|---|\n" in page.read_text()
    )
    other = {**RECORD, "processor": "Another", "rows": [["peer", 1.5]]}
    runner.write_tables(page, {"one": other})
    runner.write_tables(page, {"one": {**RECORD, "rows": [["peer", 99]]}})
    tables = runner.read_tables(page.read_text())
    assert tables["one"][2:] == [
        "| Another | AVX2 | float32 | peer | 1.5 |",
        "| Some EPYC, 2 threads | AVX2 | float32 | peer | 99 |",
    ]
    assert tables["two"][2:] == [
        "| Some EPYC, 2 threads | AVX2 | float32 | peer | 1,235 |",
        "| Some EPYC, 2 threads | AVX2 | float32 | Bothways | 2000 |",
    ]
    runner.write_tables(page, {"one": {**RECORD, "header": ["other", "columns"]}})
    assert len(runner.read_tables(page.read_text())["one"]) == 4
    assert page.read_text().startswith("# Title\n\n")
    assert page.read_text().endswith("\n\nbehind\n")
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="expected the lines"):
        runner.write_tables(page, {"one": RECORD})


def test_the_page_has_its_markers(runner: ModuleType) -> None:
    text = runner.PAGE.read_text()
    assert text.count(runner.BEGIN) == text.count(runner.END) == 1
    for lines in runner.read_tables(text.split(runner.BEGIN)[1].split(runner.END)[0]).values():
        assert len({line.count(" | ") for line in (lines[0], *lines[2:])}) == 1


def test_what_fails_or_has_no_time_leaves_the_others_theirs(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.py").write_text("import sys; print('made', sys.argv[1:])")
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    (tmp_path / "slow.py").write_text("import signal; signal.pause()")
    monkeypatch.setattr(runner, "HERE", tmp_path)
    parts = [
        runner.Part("bad", ("bad.py",), 0.01),
        runner.Part("long", ("good.py",), 500),
        runner.Part("slow", ("slow.py",), 0.002),
        runner.Part("good", ("good.py", "--sizes", "mini"), 0.01),
    ]
    said = runner.run_parts(parts, 1)
    assert [line.split(",")[0] for line in said] == [
        "bad: failed with exit code 3",
        "long: left out",
        "slow: ended after 0.0 minutes without a table",
        "good: done",
    ]
    assert "made ['--sizes', 'mini']" in capfd.readouterr().out


def test_only_what_this_run_left_is_read(runner: ModuleType, tmp_path: Path) -> None:
    for name, record in (("now", RECORD), ("before", RECORD), ("other", {"rows": []})):
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    os.utime(tmp_path / "before.json", (1, 1))
    assert list(runner.records(tmp_path, since=1000)) == ["now"]


def test_training_kernels_compares_its_ways(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = importlib.import_module("training_kernels")
    for module in (script.sublayer, script.lm_head):
        monkeypatch.setattr(module, "has_training_kernels", module.has_training_kernels)  # which it sets
    lines = [f"The dog runs in house {n}. A cat sleeps on the red bed." for n in range(80)]
    (tmp_path / "text.txt").write_text("\n\n".join(lines))
    tokenizer = script.train_tokenizer(str(tmp_path / "text.txt"), vocab_size=100)
    store = script.prepare([str(tmp_path / "text.txt")], tokenizer, tmp_path / "store")
    options = script.PretrainOptions(size="tiny", steps=10, dropout=0.1, tokens_per_step=256, precision="float32")
    rows = script.compare(store, options, rounds=1)
    assert [row[2] for row in rows] == list(script.WAYS)
    assert max(float(row[-1]) for row in rows) < 1e-4
