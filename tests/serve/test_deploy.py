"""What is in `deploy/`: it parses, names what there is, and agrees with the server's defaults."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from bothways.serve.limits import Limits
from bothways.verbs.flags import parse
from bothways.verbs.serve import ServeArguments

DEPLOY = Path(__file__).parents[2] / "deploy"


def read(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """Those of the Dockerfile, with what continues on the next lines."""
    lines = [line for line in read("Dockerfile").splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines()]


def test_the_dashboard_asks_for_figures_that_there_are(client: TestClient) -> None:
    client.post("/v1/classify", json={"model": "classify", "texts": "the dog"})
    client.post("/v1/classify", json={"model": "classify"})
    text = client.get("/metrics").text
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    labels = {name: set(re.findall(r'(\w+)="', found)) for name, found in re.findall(r"^(\w+)\{([^}]*)\}", text, re.M)}
    expressions = [
        target["expr"] for panel in json.loads(read("grafana.json"))["panels"] for target in panel["targets"]
    ]
    assert len(expressions) > 10
    for expression in expressions:
        for name, selected in re.findall(r"(bothways_\w+)(?:\{(\w+))?", expression):
            whole = re.sub(r"_(bucket|sum|count)$", "", name)
            assert kinds.get(name) in ("counter", "gauge") or kinds.get(whole) == "histogram", name
            assert not selected or selected in labels[name], (name, selected)
        for grouped in re.findall(r"by \(([^)]*)\)", expression):
            (name, *_) = re.findall(r"bothways_\w+", expression)
            assert set(grouped.split(", ")) <= labels[name], expression


def test_the_manifest_and_the_image_name_what_there_is(client: TestClient) -> None:
    deployment, service = yaml.safe_load_all(read("kubernetes.yaml"))
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = parse("serve", ServeArguments, container["args"], "")
    assert options.name == ("tickets=/models/tickets",)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert client.get(asked["path"]).status_code == 200
        assert asked["port"] in ports
    assert service["spec"]["ports"][0]["targetPort"] in ports
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > Limits.drain + pause
    mounted, volumes = ([entry["name"] for entry in of] for of in (container["volumeMounts"], pod["volumes"]))
    assert mounted == volumes

    found: dict[str, Any] = dict(instructions())
    assert str(ports["http"]) == found["EXPOSE"]
    assert str(pod["securityContext"]["runAsUser"]) == found["USER"]
    entry = json.loads(found["ENTRYPOINT"])
    assert entry[:2] == ["bothways", "serve"]
    assert str(parse("serve", ServeArguments, entry[2:], "").port) == found["EXPOSE"]
    assert "http://127.0.0.1:8080/readyz" in found["HEALTHCHECK"]


def test_the_image_keeps_hadolints_rules() -> None:
    """Those of its rules that this Dockerfile could break."""
    found = instructions()
    for name, rest in found:
        if name == "FROM":
            assert re.match(r"[a-z]+:\d[\w.-]+( AS \w+)?$", rest), "DL3006, DL3007: a version, and not the newest"
        if name == "RUN":
            assert not re.search(r"\b(sudo|cd) ", rest), "DL3004, DL3003"
            assert "apt-get install" not in rest or "--yes --no-install-recommends" in rest, "DL3014, DL3015"
            assert "apt-get update" not in rest or rest.endswith("rm -rf /var/lib/apt/lists/*"), "DL3009"
            assert "pip install" not in rest or "--no-cache-dir" in rest, "DL3042"
            assert "useradd" not in rest or "--no-log-init" in rest, "DL3046"
        if name in ("CMD", "ENTRYPOINT"):
            assert json.loads(rest), "DL3025"
        assert name not in ("MAINTAINER", "ADD"), "DL4000, DL3020"
    assert [rest for name, rest in found if name == "USER"][-1] != "root", "DL3002"
    assert [name for name, _ in found].count("HEALTHCHECK") == 1, "DL3012"
    copies = [number for number, (name, rest) in enumerate(found) if name == "COPY" and rest.split()[-1][0] != "/"]
    assert all("WORKDIR" in [name for name, _ in found[:number]] for number in copies), "DL3045"


def test_the_unit_gives_time_to_drain() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(read("bothways.service"))
    service = unit["Service"]
    assert float(service["TimeoutStopSec"]) > Limits.drain
    command = service["ExecStart"].split()
    assert command[1] == "serve"
    assert parse("serve", ServeArguments, command[2:], "").api_keys == "%d/keys"
    assert {"Unit", "Service", "Install"} == set(unit.sections())
    with pytest.raises(KeyError):
        _ = service["User"]  # DynamicUser makes one
