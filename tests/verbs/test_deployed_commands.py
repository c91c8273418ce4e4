"""The files in `deploy/` for several machines parse, and so does every command in them and every `torchrun` line of the
documentation, by torchrun's own parser and by that of the verb."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import parse_args

from bothways.tasks import TASKS
from bothways.verbs.flags import joined_options, parse

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGES = [path for path in sorted((ROOT / "docs").glob("*.md")) if "torchrun --" in path.read_text(encoding="utf-8")]


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def torchrun_lines(text: str) -> list[list[str]]:
    """The words of each `torchrun` command, with what continues on the next lines."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = re.findall(r"^(?:srun .*?)?(torchrun --.*--no-python.*)$", joined, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def parsed(words: list[str]) -> Any:
    """The options of a command that begins with `bothways VERB`."""
    name, verb, *rest = words
    assert name == "bothways"
    kind = getattr(importlib.import_module(f"bothways.verbs.{verb}"), f"{verb.title()}Arguments")
    if verb == "finetune":
        task, *rest = rest
        kind = joined_options("FinetuneArguments", kind, TASKS[task].Options)
    return parse(verb, kind, rest, "")


def parsed_behind_torchrun(words: list[str]) -> tuple[Any, Any]:
    """The options of torchrun, and those of the command behind it."""
    of_torchrun = parse_args(words[1:])
    assert of_torchrun.no_python
    return of_torchrun, parsed([of_torchrun.training_script, *of_torchrun.training_script_args])


def test_the_slurm_script() -> None:
    path = DEPLOY / "slurm.sh"
    subprocess.run(["bash", "-n", path], check=True)
    (words,) = torchrun_lines(path.read_text(encoding="utf-8").replace('"$SLURM_JOB_NUM_NODES"', "2"))
    of_torchrun, options = parsed_behind_torchrun(words)
    assert of_torchrun.max_restarts == 0  # Slurm starts the job again, not torchrun
    assert (options.parallel, options.out) == ("fsdp", "run")


def test_the_job_of_kubernetes() -> None:
    service, job = documents("training.yaml")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    of_torchrun, options = parsed_behind_torchrun([*container["command"], *container["args"]])
    assert of_torchrun.nnodes == str(job["spec"]["completions"]) == str(job["spec"]["parallelism"])
    name = job["metadata"]["name"]
    assert of_torchrun.rdzv_endpoint.partition(":")[0] == f"{name}-0.{pod['subdomain']}"
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert options.out == "run"


def test_the_clusters_of_kuberay() -> None:
    cluster, job = documents("kuberay.yaml")
    assert (cluster["kind"], job["kind"]) == ("RayCluster", "RayJob")
    for spec in (cluster["spec"], job["spec"]["rayClusterSpec"]):
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            assert all(type(value) is str for value in group["rayStartParams"].values())  # as Ray's flags are
            (container,) = group["template"]["spec"]["containers"]
            assert container["image"] == "bothways-ray:latest"
        for group in spec["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    words = shlex.split(job["spec"]["entrypoint"])
    embed = importlib.import_module("bothways.verbs.embed").EmbedArguments
    if "on" not in {field.name for field in dataclasses.fields(embed)}:
        pytest.skip("this Bothways has no --on")
    assert parsed(words).on == "ray"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_lines_of_the_documentation(page: Path) -> None:
    lines = torchrun_lines(page.read_text(encoding="utf-8"))
    assert lines
    for words in lines:
        parsed_behind_torchrun(words)
