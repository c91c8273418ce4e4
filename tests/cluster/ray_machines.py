"""A Ray cluster of three machines, each in a network namespace of its own, beside an S3-compatible server: a store and
a table of vectors are made in the bucket, a machine is lost in the middle of each, and two replicas serve a model.

    python -m tests.cluster.ray_machines

It takes root and `ip` (iproute2), and some two minutes of two slow cores.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import s3fs
from moto.server import ThreadedMotoServer

from bothways.checkpoint.hugging_face import save_checkpoint
from bothways.cluster.connection import OBJECT_STORE_BYTES
from tests.data.test_prepare import contents, write_corpus
from tests.helpers import WORDS, tiny_tokenizer
from tests.serve.conftest import served_predictor
from tests.train.two_machines import ip

BUCKET = "machines"
NETWORK = "10.232.0"
HEAD, S3_PORT, RAY_PORT, HTTP_PORT = f"{NETWORK}.1", 5600, 6479, 8471
KEY = "0123456789abcdef"
SECONDS = 150.0  # that anything may take
NEW_NETWORK = 0x40000000  # CLONE_NEWNET of setns(2)
# Ends once the cluster has so many nodes that are alive, the head among them.
NODES = """
import sys, time
import ray

ray.init("auto", logging_level="ERROR", log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    time.sleep(0.2)
"""
# A verb whose parts are as small as the table and the corpus below.
VERB = """
import sys
from bothways.cli import main
from bothways.data import store_parts
from bothways.inference import bulk
from bothways.text.extents import ExtentSize

store_parts.PART_BYTES = 20_000
bulk.part_size = lambda table_bytes: ExtentSize(1, 200)
sys.exit(main(sys.argv[1:]))
"""


@contextlib.contextmanager
def network() -> Iterator[list[str]]:
    """Three network namespaces, of which the first has a switch to which the others' cables go; their names."""
    names = [f"bothways-{os.getpid()}-{number}" for number in range(3)]
    with contextlib.ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", names[0], "link", "add", "switch", "type", "bridge")
        ip("-n", names[0], "address", "add", f"{HEAD}/24", "dev", "switch")
        ip("-n", names[0], "link", "set", "switch", "up")
        for number, name in enumerate(names[1:], 2):
            here, there = f"port{number}", f"cable{number}"
            ip("link", "add", there, "netns", name, "type", "veth", "peer", "name", here, "netns", names[0])
            ip("-n", names[0], "link", "set", here, "master", "switch", "up")
            ip("-n", name, "address", "add", f"{NETWORK}.{number}/24", "dev", there)
            ip("-n", name, "link", "set", there, "up")
        yield names


def enter(name: str) -> None:
    """This process, its threads and processes from now on are in a namespace."""
    descriptor = os.open(f"/var/run/netns/{name}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, NEW_NETWORK):
        raise OSError(ctypes.get_errno(), f"{name} cannot be entered")
    os.close(descriptor)


class Node:
    """A node of Ray in a namespace. number: the last of its address; 1 is the head, which makes no parts."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        here = ["--head", "--port", str(RAY_PORT), "--include-dashboard=false", "--num-cpus", "0"]
        there = ["--address", f"{HEAD}:{RAY_PORT}", "--num-cpus", "1"]
        options = ["--object-store-memory", str(OBJECT_STORE_BYTES), "--disable-usage-stats", "--block"]
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, "-m", "ray.scripts.scripts", "start",
             *(here if number == 1 else there), "--node-ip-address", f"{NETWORK}.{number}", *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def lose(self) -> None:
        """What runs in the namespace ends at once, as where power is lost."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        for process in set(map(int, found.stdout.split())) - {os.getpid()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()


def verb(*arguments: object, meanwhile: Callable[[], None] = lambda: None) -> str:
    """A verb, in this namespace: what it said. meanwhile: done beside it."""
    words = [sys.executable, "-c", VERB, *map(str, arguments)]
    job = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(meanwhile)
        try:
            said = job.communicate(timeout=SECONDS)[0]
        except subprocess.TimeoutExpired:
            job.kill()
            said = f"it took too long: {job.communicate()[0]}"
    assert job.returncode == 0, said
    beside.result()  # or what it failed with
    return said


def head_answers() -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HEAD, RAY_PORT), 1.0):
        return True
    return False


def wait_for_nodes(number: int = 3) -> None:
    subprocess.run([sys.executable, "-c", NODES, str(number)], check=True, timeout=SECONDS)


def wait_until(happened: Callable[[], object]) -> None:
    by = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < by, "it took too long"
        time.sleep(0.1)


def write_inputs(folder: Path) -> None:
    """A corpus, a vocabulary, a table, and a classifier."""
    write_corpus(folder / "c.jsonl", documents=3000)
    (folder / "vocabulary").mkdir()
    tiny_tokenizer().save(folder / "vocabulary")
    texts = (" ".join(WORDS[(n * k) % len(WORDS)] for k in range(1, 2 + n % 9)) for n in range(8_000))
    (folder / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    save_checkpoint(served_predictor("classify").checkpoint, folder / "m")


def ask(texts: list[str]) -> Any:
    """The labels of the replicas."""
    body = json.dumps({"texts": texts}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    address = f"http://{HEAD}:{HTTP_PORT}/v1/classify"
    request = urllib.request.Request(address, body, headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def compare(folder: Path, nodes: list[Node]) -> None:
    """Make, lose, and serve."""
    names = [node.name for node in nodes]
    bucket = s3fs.S3FileSystem(use_listings_cache=False)
    bucket.mkdir(BUCKET)
    bucket.put(str(folder / "c.jsonl"), f"{BUCKET}/c.jsonl")
    bucket.put(str(folder / "t.jsonl"), f"{BUCKET}/t.jsonl")

    def lose_at_part(number: int, result: str, node: Node) -> Callable[[], None]:
        def lose() -> None:
            wait_until(lambda: len(bucket.glob(f"{BUCKET}/{result}.parts/*-*.json")) >= number)
            node.lose()
            assert bucket.exists(f"{BUCKET}/{result}.parts/manifest.json"), "it was made before the node was lost"

        return lose

    prepare = ["prepare", f"s3://{BUCKET}/c.jsonl", "--tokenizer", folder / "vocabulary"]
    verb(*prepare, "--workers", 1, "--out", folder / "store")
    lose = lose_at_part(3, "store", nodes[1])
    said = verb(*prepare, "--on", "ray", "--out", f"s3://{BUCKET}/store", meanwhile=lose)
    bucket.get(f"{BUCKET}/store", str(folder / "store-there"), recursive=True)
    assert contents(folder / "store-there") == contents(folder / "store")
    print(f"prepare: the same bytes; {said_of_loss(said)}")

    nodes[1] = Node(names[1], 2)
    embed = ["embed", folder / "m", "--in", f"s3://{BUCKET}/t.jsonl"]
    verb(*embed, "--out", folder / "v.jsonl")
    wait_for_nodes()
    lose = lose_at_part(3, "v.jsonl", nodes[2])
    said = verb(*embed, "--on", "ray", "--out", f"s3://{BUCKET}/v.jsonl", meanwhile=lose)
    assert bucket.cat(f"{BUCKET}/v.jsonl") == (folder / "v.jsonl").read_bytes()
    print(f"embed: the same bytes; {said_of_loss(said)}")

    nodes[2] = Node(names[2], 3)
    wait_for_nodes()
    serve = ["serve", "--on", "ray", "--port", HTTP_PORT, "--host", HEAD, "--name", f"m={folder / 'm'}"]
    print(verb(*serve, "--replicas", 2).strip())
    texts = ["the dog", "a cat sat"]
    before = ask(texts)
    nodes[1].lose()
    wait_until(lambda: answers(texts) == before)
    print("serve: the same answers from the replica that is left")
    verb("serve", "--on", "ray", "--replicas", 0)


def answers(texts: list[str]) -> Any:
    with contextlib.suppress(OSError):
        return ask(texts)
    return None


def said_of_loss(said: str) -> str:
    return next((line for line in said.splitlines() if "made again" in line), "its node was lost between two parts")


def main() -> int:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        names = stack.enter_context(network())
        enter(names[0])
        os.environ.update(
            AWS_ENDPOINT_URL=f"http://{HEAD}:{S3_PORT}", AWS_ACCESS_KEY_ID="tests", AWS_SECRET_ACCESS_KEY="tests",
            AWS_DEFAULT_REGION="us-east-1", BOTHWAYS_CACHE=str(folder / "cache"), RAY_ADDRESS=f"{HEAD}:{RAY_PORT}",
            OMP_NUM_THREADS="1", BOTHWAYS_API_KEYS=f"test:{KEY}",
        )  # fmt: skip
        server = ThreadedMotoServer(HEAD, S3_PORT, verbose=False)
        server.start()
        stack.callback(server.stop)
        write_inputs(folder)
        nodes = [Node(names[0], 1)]
        stack.callback(lambda: [node.lose() for node in nodes])
        wait_until(head_answers)  # a node that is begun earlier gives up
        for number, name in enumerate(names[1:], 2):
            nodes.append(Node(name, number))
            wait_for_nodes(number)  # two that begin at once on one disk take the same name for their sockets
        compare(folder, nodes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
