"""A time instead of a number of steps: what is chosen ends with the time, is kept by a resumed run, and can be
refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bothways as bw
from bothways.cli import main
from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.train import budget
from bothways.train.budget import SPARE, fitting_steps, least_steps, run_seconds
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import intervals_of, phases_of, validation_tokens
from bothways.train.run import RunDirectory
from bothways.train.speed import Costs, measure_costs
from bothways.verbs.describe_batch import epoch_lines
from bothways.verbs.flags import parse
from bothways.verbs.pretrain import PretrainArguments
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer
from tests.train.running import StopAfter, state_of

COSTS = Costs(start=3.0, steps=(0.5,), evaluation=0.25, validation_token=1e-5, checkpoint=0.125, held_out_tokens=50_000)
OPTIONS = PretrainOptions(
    size="tiny", tokens_per_step=200, sequence_length=32, log_every=1, max_position_embeddings=64, precision="float32"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("budget")
    write_corpus(folder / "c.jsonl", documents=60)
    return prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[PretrainOptions]:
    """What was measured, where every measurement says a step of 0.01 seconds and nothing else takes time."""
    asked: list[PretrainOptions] = []

    def measure(store: TokenStore, options: PretrainOptions, *rest: Any) -> Costs:
        asked.append(options)
        return Costs(0.0, (0.01,), 0.0, 0.0, 0.0, 0)

    monkeypatch.setattr(budget, "measure_costs", measure)
    monkeypatch.setattr(budget.RunPlace, "elapsed", 0.0)
    return asked


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time may come to five steps."""
    monkeypatch.setattr(budget, "LEAST_STEPS", 5)


def given(store: TokenStore, run: Path, options: PretrainOptions, stop: int = -1) -> list[str]:
    """Pretrain; returns what was said."""
    progress = StopAfter(stop)
    pretrain(store.directory, run, options, progress=progress)
    return progress.said


def simulated(options: PretrainOptions, costs: Costs) -> float:
    """A fake clock: the seconds of a run as the loop goes through it, step by step."""
    assert options.steps is not None
    clock, intervals, read = costs.start, intervals_of(options), validation_tokens(options)
    phases = phases_of(options)
    for step in range(1, options.steps + 1):
        number = next(n for n, phase in enumerate(phases) if step <= phase.end)
        clock += costs.steps[number]
        last = step == options.steps
        if last or (intervals.evaluate and step % intervals.evaluate == 0):
            tokens = min(costs.held_out_tokens, read.at_end if last else read.during)
            clock += costs.evaluation + max(0, tokens - 4096) * costs.validation_token
        if last or step % intervals.checkpoint == 0:
            clock += costs.checkpoint
    return clock + costs.checkpoint  # the model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"evaluate_every": 0, "checkpoint_every": 7},
        {"validation_tokens": 30_000, "evaluate_every": 3},
        {"phases": ("128:0.9", "512:0.1:1000")},
    ],
    ids=["default", "rarely", "often", "phases"],
)
def test_the_schedule_ends_when_the_time_does(options: dict[str, Any]) -> None:
    asked = replace(PretrainOptions(tokens_per_step=8192), **options)
    costs = replace(COSTS, steps=(0.5, 2.0)) if asked.phases else COSTS
    for seconds in (60, 61.7, 3600):
        steps = fitting_steps(seconds, asked, costs)
        assert steps is not None
        fits, next_one = (replace(asked, steps=steps + more) for more in (0, 1))
        assert simulated(fits, costs) == pytest.approx(run_seconds(fits, costs))
        assert simulated(fits, costs) <= seconds < simulated(next_one, costs)


def test_a_time_of_fewer_than_the_least_steps_fits_none() -> None:
    asked = PretrainOptions(evaluate_every=0, checkpoint_every=1000)
    least = 3.0 + 50 * 0.5 + 0.25 + (50_000 - 4096) * 1e-5 + 2 * 0.125
    assert fitting_steps(least, asked, COSTS) == 50
    assert fitting_steps(least - 0.01, asked, COSTS) is None
    assert least_steps(replace(asked, phases=("128:0.995", "512:0.005"))) == 200


def test_what_was_chosen_is_said_and_kept(
    store: TokenStore, tmp_path: Path, few_steps: None, measured: list[PretrainOptions]
) -> None:
    asked = replace(OPTIONS, minutes=0.125 / 60 / (1 - SPARE))  # 12 steps
    said = given(store, tmp_path / "run", asked, stop=5)
    assert said[0].endswith(
        "20,000 tokens/s: 12 steps of tiny; for the same on any machine: steps=12 size='tiny' decay=0.2"
    )
    assert json.loads((tmp_path / "run" / "run.json").read_text())["options"] | {"minutes": None} == {
        **vars(OPTIONS), "phases": [], "teacher_losses": [], "steps": 12, "decay": 0.2, "minutes": None,
    }  # fmt: skip
    assert "resuming at step 5 of 12" in given(store, tmp_path / "run", asked)
    assert len(measured) == 1
    told = json.loads((tmp_path / "run" / "model" / "bothways.json").read_text())["provenance"]["options"]
    assert (told["minutes"], told["steps"], told["decay"]) == (asked.minutes, 12, 0.2)
    given(store, tmp_path / "fixed", replace(OPTIONS, steps=12, decay=0.2))
    assert state_of(tmp_path / "run") == state_of(tmp_path / "fixed")


def test_another_time_is_another_number_of_steps(
    store: TokenStore, tmp_path: Path, few_steps: None, measured: list[PretrainOptions]
) -> None:
    """Of the same size, and whether the run was begun with a time or with steps."""

    def of(steps: int) -> dict[str, float]:
        return {"minutes": (steps + 0.5) / 6000 / (1 - SPARE)}

    given(store, tmp_path / "run", replace(OPTIONS, size="auto", **of(10)), stop=5)
    said = given(store, tmp_path / "run", replace(OPTIONS, size="auto", **of(14)), stop=6)
    assert any(line.startswith("resuming at step 5 of 14, which were 10") for line in said)
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["options"]["minutes"] == of(14)["minutes"]
    assert f"--minutes {of(14)['minutes']}" in described["command"]
    assert "--steps" not in described["command"]
    said = given(store, tmp_path / "run", replace(OPTIONS, steps=7))
    assert any(line.startswith("resuming at step 6 of 7, which were 14") for line in said)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["options"]["minutes"] is None
    given(store, tmp_path / "steps", replace(OPTIONS, steps=7), stop=3)
    said = given(store, tmp_path / "steps", replace(OPTIONS, **of(10)), stop=4)
    assert any(line.startswith("resuming at step 3 of 10, which were 7") for line in said)
    with pytest.raises(UserError, match=r"made otherwise: decay was 1\.0, now 0\.5"):
        given(store, tmp_path / "steps", replace(OPTIONS, decay=0.5, **of(10)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hours": 8.0, "steps": 100}, r"^hours=8\.0 and steps=100: give one of them; a time is turned into steps$"),
        ({"hours": 1.0, "minutes": 30.0}, r"^hours=1\.0 and minutes=30\.0: give one"),
        ({"hours": -1.0}, r"^hours=-1\.0: expected a number above 0$"),
        ({"minutes": float("nan")}, "^minutes=nan: expected a number above 0$"),
        ({"size": "auto"}, r"^size='auto': is chosen by hours or minutes; give one of these, or a size \(tiny, mini, "),
        ({"size": "auto", "hours": 1.0, "model": "m"}, "^size='auto' and model='m': a model has its size"),
        # 50 steps of 0.01 seconds, 2 % of the time to spare, a tenth more: 0.56 seconds
        (
            {"minutes": 1e-6},
            r"^minutes=1e-06: too short for 50 steps of tiny on this machine; minutes=0\.0094 would do",
        ),
        ({"hours": 1e-6}, r"hours=0\.00016 would do, or fewer tokens_per_step$"),
    ],
)
def test_what_is_refused(
    store: TokenStore, tmp_path: Path, measured: list[PretrainOptions], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        pretrain(store.directory, tmp_path / "a" / "run", replace(OPTIONS, **options))
    assert not (tmp_path / "a").exists()


def test_a_recipe_may_give_a_time_and_what_is_typed_wins(tmp_path: Path, store: TokenStore) -> None:
    hours, steps = tmp_path / "hours.toml", tmp_path / "steps.toml"
    hours.write_text("[pretrain]\nhours = 8\n")
    steps.write_text("[pretrain]\nsteps = 5000\nsize = 'small'\n")

    def read(*words: str) -> PretrainArguments:
        return parse("pretrain", PretrainArguments, ["store", "--out", "run", "--recipe", *words], "")

    assert (read(str(hours)).hours, read(str(hours)).steps) == (8.0, None)
    typed = read(str(steps), "--minutes", "20")
    assert (typed.minutes, typed.steps, typed.size) == (20.0, None, "small")
    assert (read(str(hours), "--steps", "7").hours, read(str(hours), "--steps", "7").steps) == (None, 7)
    said = f"recipe {hours} gives a time, whose steps are measured where it is pretrained; look at that run"
    assert epoch_lines(store, str(hours)) == [said]


def test_auto_takes_the_largest_size_that_sees_enough(
    tmp_path: Path, store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty tokens for each of 12·L·H² parameters (tiny 0.4, mini 3.2, small 12.6, medium 25.2 million)."""
    speed = {"tiny": 32, "mini": 16, "small": 8, "medium": 4}  # thousands of tokens a second
    tried: list[str] = []

    def measure(store: TokenStore, options: PretrainOptions, *rest: Any) -> Costs:
        tried.append(options.size)
        return Costs(0.0, (8.192 / speed[options.size],), 0.0, 0.0, 0.0, 0)

    monkeypatch.setattr(budget, "measure_costs", measure)
    monkeypatch.setattr(budget.RunPlace, "elapsed", 0.0)
    monkeypatch.setattr(budget, "WORTHWHILE_EPOCHS", 10**9)
    monkeypatch.setattr(budget, "AUTO_SIZES", ("tiny", "mini", "small", "medium"))  # to make a base takes seconds
    place = budget.RunPlace(store, RunDirectory(tmp_path / "run"), bw.train.distributed.World(), 0.0)  # type: ignore[attr-defined]

    def chosen(hours: float) -> tuple[str, list[str]]:
        tried.clear()
        return budget.settle(PretrainOptions(size="auto", hours=hours), place, StopAfter(-1)).size, list(tried)

    assert chosen(0.25) == ("tiny", ["tiny"])  # 28 million tokens in a quarter of an hour, where mini wants 63
    assert chosen(1) == ("tiny", ["tiny", "mini"])  # 56 million
    assert chosen(1.2) == ("mini", ["tiny", "mini"])
    assert chosen(10) == ("small", ["tiny", "mini", "small"])  # 282 million, of 252; small sees 288, medium wants 505
    assert chosen(1000) == ("medium", ["tiny", "mini", "small", "medium"])
    monkeypatch.setattr(budget, "WORTHWHILE_EPOCHS", 40)  # of a text of some hundred words
    assert chosen(1000) == ("tiny", ["tiny"])


def test_a_run_of_a_fifth_of_a_minute(store: TokenStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured as it is, on the command line, and resumed as it was chosen. On a machine that is busy with other work
    the time may be refused; that which is told to do in its place does."""
    minutes, rest = "0.2", [
        "--out", str(tmp_path / "run"), "--size", "tiny", "--tokens-per-step", "128", "--sequence-length", "32",
        "--max-position-embeddings", "64", "--evaluate-every", "0", "--checkpoint-every", "100000",
    ]  # fmt: skip
    for _ in range(3):
        command = ["pretrain", str(store.directory), "--minutes", minutes, *rest]
        code, said = main(command), capsys.readouterr().err
        if code == 0:
            break
        refused = re.search(
            rf"^bothways: --minutes {minutes}: too short for 50 steps .*; --minutes (\S+) would do", said
        )
        assert refused is not None, said
        minutes = refused[1]
    found = re.search(
        rf"--minutes {re.escape(minutes)} on this machine, .*: ([\d,]+) steps of tiny; .*: (--steps \d+ .*)", said
    )
    assert found is not None
    steps = int(found[1].replace(",", ""))
    assert steps >= 50
    assert found[2] == f"--steps {steps} --size tiny --decay 0.2"
    assert RunDirectory(tmp_path / "run").metrics()[-1]["step"] == steps
    assert not list(tmp_path.glob(".measuring*"))
    assert f"{minutes} minutes were given for all of it" in (tmp_path / "run" / "report.html").read_text(
        encoding="utf-8"
    )
    assert main(command) == 0
    assert f"done already, {steps:,} steps" in capsys.readouterr().err


def test_measuring_changes_nothing_that_is_learnt(store: TokenStore, tmp_path: Path) -> None:
    asked = replace(OPTIONS, steps=4, dropout=0.1, phases=("16:0.5", "32:0.5"), sequence_length=128)
    given(store, tmp_path / "plain", asked)
    costs = measure_costs(store, asked, tmp_path / "a" / "run", bw.train.distributed.World(), 0.0)  # type: ignore[attr-defined]
    assert len(costs.steps) == 2
    assert min(costs.start, *costs.steps, costs.evaluation, costs.validation_token, costs.checkpoint) > 0
    given(store, tmp_path / "run", asked)
    assert state_of(tmp_path / "run") == state_of(tmp_path / "plain")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "run"]
