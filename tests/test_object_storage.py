"""The whole way on an S3-compatible server (moto's, on this machine), and its refusals, each in one line."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import moto.settings
import numpy as np
import pyarrow.parquet as pq
import pytest
import zstandard
from moto.server import ThreadedMotoServer
from safetensors.torch import load_file

import bothways as bw
from bothways import remote_files
from bothways.checkpoint.unfinished import UnfinishedRunWarning
from bothways.data import store_parts
from bothways.data.prepare import prepare
from bothways.data.store_parts import StoreParts, _copy_of, open_store_parts
from bothways.inference import bulk
from bothways.mirrors import WRITER
from bothways.text.extents import ExtentSize
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from tests.data.test_prepare import contents, write_corpus
from tests.helpers import WORDS, Run, tiny_tokenizer
from tests.tasks.test_classify import ROWS
from tests.train.running import StopAfter
from tests.train.two_machines import SOUND, Agents, Machine

BUCKET = "bothways-tests"
SECRET = "not-to-be-shown"
STEPS = 5


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of the server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    yield f"http://{host}:{port}"
    started.stop()


@pytest.fixture
def s3(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """s3fs's file system with an account on the server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    forget_connections()
    filesystem = remote_files._filesystem("s3")
    if not filesystem.exists(BUCKET):
        filesystem.mkdir(BUCKET)
    yield filesystem
    forget_connections()


def forget_connections() -> None:
    """Let the next request read the environment again."""
    import s3fs

    remote_files._filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


def test_the_whole_way_in_a_bucket(
    s3: Any, cache: Path, tmp_path: Path, bothways: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{BUCKET}"
    write_corpus(tmp_path / "c.jsonl", documents=60)
    lines = (tmp_path / "c.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "texts").mkdir()
    for number in range(3):
        content = zstandard.compress(b"".join(lines[number::3]))
        (tmp_path / "texts" / f"{number}.jsonl.zst").write_bytes(content)
        s3.pipe(f"{BUCKET}/texts/{number}.jsonl.zst", content)
    for name, rows in (("train", ROWS[::2]), ("test", ROWS[1::2])):
        s3.pipe(f"{BUCKET}/{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())

    code, out, err = bothways(
        "tokenizer", f"{url}/texts/*.jsonl.zst", "--vocab-size", 120, "--out", f"{url}/vocabulary"
    )
    assert code == 0, err
    assert out.startswith(f"{url}/vocabulary: 92 pieces, ")
    assert err.count("BOTHWAYS_CACHE") == 1
    assert f"next: bothways prepare '{url}/texts/*.jsonl.zst' --tokenizer {url}/vocabulary" in out
    wanted = ("prepare", f"{url}/texts", "--tokenizer", f"{url}/vocabulary", "--workers", 1)
    code, out, err = bothways(*wanted, "--out", f"{url}/store")
    assert code == 0, err
    assert {"manifest.json", "train-00000.arrow"} <= {name.rpartition("/")[2] for name in s3.find(f"{BUCKET}/store")}
    code, out, _ = bothways(*wanted, "--out", f"{url}/store")
    assert out.startswith(f"{url}/store: done already, of the same files\n")
    store = bw.TokenStore(f"{url}/store")
    texts = sorted((tmp_path / "texts").iterdir())
    here = prepare(texts, bw.Tokenizer.load(f"{url}/vocabulary"), tmp_path / "store", workers=1)
    assert store.fingerprint == here.fingerprint
    assert [s["path"] for s in store.manifest["recipe"]["sources"]] == [f"{url}/texts/{p.name}" for p in texts]

    options = PretrainOptions(
        size="tiny", steps=STEPS, tokens_per_step=256, sequence_length=32, max_position_embeddings=64, log_every=1,
        checkpoint_every=2, evaluate_every=0, precision="float32", device="cpu",
    )  # fmt: skip
    expected = pretrain(here, tmp_path / "run", options, quiet=True)
    assert expected.steps == STEPS
    stopped = pretrain(f"{url}/store", f"{url}/run", options, progress=StopAfter(3))
    assert stopped.interrupted is not None
    monkeypatch.setenv("BOTHWAYS_CACHE", str(cache / "of another machine"))
    remote_files._say_cache.cache_clear()
    given = [(f"--{name.replace('_', '-')}", getattr(options, name)) for name in (
        "size", "steps", "tokens_per_step", "sequence_length", "max_position_embeddings", "log_every",
        "checkpoint_every", "evaluate_every", "precision", "device",
    )]  # fmt: skip
    arguments = ["pretrain", f"{url}/store", "--out", f"{url}/run", *(word for pair in given for word in pair)]
    code, out, err = bothways(*arguments)
    assert code == 0, err
    assert f"resuming at step 3 of {STEPS}" in err
    assert f"{url}/run: model in {url}/run/model" in out
    assert str(cache) not in out + err.replace(str(cache / "of another machine") + " (", "")
    run = remote_files.local_folder(f"{url}/run")
    for name in ("model/model.safetensors", f"checkpoints/step-{STEPS:08d}/optimizer.safetensors"):
        there, undisturbed = load_file(run / name), load_file(tmp_path / "run" / name)
        assert all(there[key].equal(undisturbed[key]) for key in undisturbed)
    described = json.loads((run / "run.json").read_text())
    assert described["store"] == f"{url}/store"
    assert described["command"].startswith(f"bothways pretrain {url}/store --out {url}/run ")
    assert (run / "report.html").stat().st_size > 1000
    everything = b"".join(path.read_bytes() for path in run.rglob("*") if path.suffix in (".json", ".html", ".jsonl"))
    assert SECRET.encode() not in everything
    assert str(cache).encode() not in everything
    code, out, err = bothways(*arguments)
    assert code == 0
    assert f"{url}/run: done already, {STEPS} steps" in err

    finetune = ["finetune", "classify", "--model", f"{url}/run", "--train", f"{url}/train.jsonl", "--eval",
                f"{url}/test.jsonl", "--out", f"{url}/classifier", "--epochs", 2, "--batch-size", 8]  # fmt: skip
    code, out, err = bothways(*finetune)
    assert code == 0, err
    assert f"{url}/classifier/predictions.csv: what was predicted" in out
    assert {"model", "run.json", "evaluation.json", "predictions.csv", "report.html"} <= {
        path.name for path in remote_files.local_folder(f"{url}/classifier").iterdir()
    }
    bulk = ["embed", "--model", f"{url}/classifier", "--in", f"{url}/test.jsonl", "--out", f"{url}/vectors.parquet"]
    code, out, err = bothways(*bulk)
    assert code == 0, err
    assert out.startswith(f"{url}/vectors.parquet: {len(ROWS[1::2])} rows")
    vectors = pq.read_table(remote_files.local_file(f"{url}/vectors.parquet"))["embedding"].to_pylist()
    model = bw.load(f"{url}/classifier")
    np.testing.assert_allclose(vectors, model.embed([row["text"] for row in ROWS[1::2]]), atol=1e-5)
    code, _, err = bothways(*bulk)
    assert (code, err.splitlines()[-1].split(";")[0]) == (
        2, f"bothways: --out: {url}/vectors.parquet is there already"
    )  # fmt: skip
    names = [name.removeprefix(f"{BUCKET}/") for name in s3.find(BUCKET)]
    assert {name for name in names if WRITER in name} == {f"run/{WRITER}", f"classifier/{WRITER}"}


def test_machines_that_share_a_bucket_only_make_its_parts(
    s3: Any, cache: Path, tmp_path: Path, pretrained: Path, bothways: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares in caches of their own, the results of one machine; nothing of the parts stays, there or here."""
    url = f"s3://{BUCKET}/shared"
    monkeypatch.setattr(store_parts, "PART_BYTES", 6_000)
    monkeypatch.setattr(bulk, "part_size", lambda table_bytes: ExtentSize(1, 40))
    write_corpus(tmp_path / "c.jsonl", documents=60)
    s3.put(str(tmp_path / "c.jsonl"), f"{BUCKET}/shared-texts/c.jsonl")
    given = ["prepare", f"s3://{BUCKET}/shared-texts/c.jsonl", "--tokenizer", pretrained, "--workers", 1]
    assert bothways(*given, "--out", tmp_path / "store")[0] == 0
    rows = [{"text": " ".join(WORDS[(n * k) % len(WORDS)] for k in range(1, 2 + n % 9))} for n in range(200)]
    rows[5]["text"] = ""
    s3.pipe(f"{BUCKET}/shared-texts/t.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    embed = ["embed", pretrained, "--in", f"s3://{BUCKET}/shared-texts/t.jsonl"]
    assert bothways(*embed, "--out", tmp_path / "t.jsonl")[0] == 0

    def as_another_machine(name: str) -> None:
        monkeypatch.setenv("BOTHWAYS_CACHE", str(cache / name))
        _copy_of.cache_clear()

    for command, out in ((given, f"{url}/store"), (embed, f"{url}/t.jsonl")):
        for share in ("0/3", "2/3", "1/3", "2/3"):
            as_another_machine(f"machine{share[0]}")
            code, said, err = bothways(*command, "--out", out, "--parts", share)
            assert code == 0, err
            assert f"{out}.parts: made " in said
        as_another_machine("joining")
        code, said, err = bothways("join", out)
        assert code == 2
        assert f"bothways {command[0]} " in said
        assert f"{out}.parts: " in err
        as_another_machine("actor")  # makes one without knowing the command
        if command is given:
            missing = StoreParts.load(tmp_path / "any", out).parts.missing()
            assert open_store_parts(tmp_path / "any", out)(missing[0]) > 0
        as_another_machine("machine3")
        assert bothways(*command, "--out", out, "--parts", "3/3")[0] == 0
        as_another_machine("joining")
        code, said, err = bothways("join", f"{out}.parts/")
        assert code == 0, err
        assert not s3.find(f"{out}.parts")
        assert f"{out}.parts: no such folder of parts; {out} is there already" in refusal(bothways, "join", out)
    s3.get(f"{BUCKET}/shared/store", str(tmp_path / "fetched"), recursive=True)
    assert contents(tmp_path / "fetched") == contents(tmp_path / "store")
    assert s3.cat(f"{BUCKET}/shared/t.jsonl") == (tmp_path / "t.jsonl").read_bytes()
    assert json.loads(s3.cat(f"{BUCKET}/shared/t.jsonl.bad.jsonl"))["row"] == f"s3://{BUCKET}/shared-texts/t.jsonl:6"
    assert not list(cache.rglob("*.parts"))
    assert "is there already" in refusal(bothways, *embed, "--out", f"{url}/t.jsonl", "--parts", "1/3")
    assert "done already" in bothways(*given, "--out", f"{url}/store", "--parts", "1/3")[1]


@pytest.mark.slow
def test_shards_of_machines_that_share_a_bucket_only_are_one_checkpoint(s3: Any, cache: Path, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/sharded"
    write_corpus(tmp_path / "c.jsonl", documents=100)
    store = prepare([tmp_path / "c.jsonl"], tiny_tokenizer(), tmp_path / "store", workers=1).directory
    machines = [Machine(environment={"BOTHWAYS_CACHE": str(cache / name)}) for name in ("one", "other")]
    for code, said in Agents(machines, store, url, ("--parallel", "fsdp", "--steps", "3", "--evaluate-every", "0")).run(
        SOUND
    ):
        assert code == 0, said
    names = [name.removeprefix(f"{BUCKET}/sharded/") for name in s3.find(f"{BUCKET}/sharded")]
    shards = [name for name in names if re.fullmatch(r"checkpoints/step-00000003/[^/]+\.safetensors", name)]
    assert len(shards) == 2
    assert not [name for name in names if "/." in f"/{name}" and not name.endswith(WRITER)]
    finished = bw.load(url).model.state_dict()
    s3.rm(f"{BUCKET}/sharded/model", recursive=True)
    with pytest.warns(UnfinishedRunWarning, match="step 3 of 3"):
        unfinished = bw.load(url).model.state_dict()
    assert all(unfinished[name].equal(finished[name]) for name in finished)


def refusal(bothways: Run, *arguments: object) -> str:
    """The one line of a refusal, without the note on the cache."""
    code, out, err = bothways(*arguments)
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if "BOTHWAYS_CACHE" not in line]
    assert len(lines) == 1, err
    assert SECRET not in lines[0]
    return lines[0]


def test_refusals(s3: Any, bothways: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    s3.pipe(f"{BUCKET}/a.txt", b"a text\n")
    learn = ("tokenizer", f"s3://{BUCKET}/a.txt", "--out", tmp_path / "v")
    assert refusal(bothways, "tokenizer", f"s3://{BUCKET}/no.txt", "--out", tmp_path / "v") == (
        f"bothways: s3://{BUCKET}/no.txt: no such file or folder"
    )
    for path in ("a.txt", "*.txt"):
        assert refusal(bothways, "tokenizer", f"s3://no-such-bucket/{path}", "--out", tmp_path / "v") == (
            f"bothways: s3://no-such-bucket/{path}: there is no such bucket, no-such-bucket"
        )
    said = refusal(bothways, *learn[:-1], "s3://no-such-bucket/v")
    assert said.startswith("bothways: s3://no-such-bucket/v")
    assert said.endswith(": there is no such bucket, no-such-bucket")
    with monkeypatch.context() as patch:
        patch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on accounts are checked
        assert f"s3://{BUCKET}/a.txt: no permission (" in refusal(bothways, *learn)

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    forget_connections()
    assert refusal(bothways, *learn) == (
        f"bothways: s3://{BUCKET}/a.txt: cannot be read: Unable to locate credentials; they are taken from the "
        "environment or from the files of the provider's own tools"
    )


def test_a_server_that_does_not_answer(s3: Any, bothways: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hasty = {"config_kwargs": {**remote_files.S3_OPTIONS["config_kwargs"], "read_timeout": 0.1}}
    monkeypatch.setattr(remote_files, "S3_OPTIONS", hasty)
    learn = ("tokenizer", f"s3://{BUCKET}/a.txt", "--out", tmp_path / "v")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        forget_connections()
        assert f"s3://{BUCKET}/a.txt: cannot be read: Read timeout on endpoint URL" in refusal(bothways, *learn)
    forget_connections()
    assert f"s3://{BUCKET}/a.txt: cannot be read: Could not connect to the endpoint" in refusal(bothways, *learn)
