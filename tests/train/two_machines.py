"""Two `torchrun` agents as two machines, each in a network namespace of its own where these may be made: a run is begun
on both, one loses its power, and the run goes on from its last checkpoint, on both and on one.

    python -m tests.train.two_machines

Namespaces take root and `ip` (iproute2); without them both agents are on the loopback, which is said.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bothways.data.prepare import prepare
from bothways.train.run import RunDirectory
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer
from tests.train.launching import SECONDS, Agent
from tests.train.test_distributed import OPTIONS, furthest

Started = subprocess.Popen[str] | Agent  # the latter on the loopback
LOOPBACK = "127.0.0.1"
SOUND, DYING = ("-m", "bothways.cli"), ("-m", "tests.train.dying")


@dataclass(frozen=True)
class Machine:
    """Where an agent runs. prefix: of its command. address: by which the others reach it."""

    prefix: tuple[str, ...] = ()
    address: str = LOOPBACK
    environment: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def network_namespaces() -> Iterator[list[Machine]]:
    """Two machines with a cable between them. Raises OSError or CalledProcessError where they may not be made."""
    names = [f"bothways-{os.getpid()}-{number}" for number in range(2)]
    cables = [f"bw{os.getpid() % 100_000}v{number}" for number in range(2)]
    with contextlib.ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
        ip("link", "add", cables[0], "netns", names[0], "type", "veth", "peer", "name", cables[1], "netns", names[1])
        for number, (name, cable) in enumerate(zip(names, cables, strict=True)):
            ip("-n", name, "address", "add", f"10.231.0.{number + 1}/24", "dev", cable)
            for device in ("lo", cable):
                ip("-n", name, "link", "set", device, "up")
        yield [
            Machine(("ip", "netns", "exec", name), f"10.231.0.{number + 1}", {"GLOO_SOCKET_IFNAME": cable})
            for number, (name, cable) in enumerate(zip(names, cables, strict=True))
        ]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as listening:
        listening.bind((LOOPBACK, 0))
        port: int = listening.getsockname()[1]
        return port


@dataclass(frozen=True)
class Agents:
    """`torchrun` on each of some machines, one process of the run on each; the first has the rendezvous. more: options
    of the run."""

    machines: Sequence[Machine]
    store: Path
    out: Path | str
    more: tuple[str, ...] = ()

    def start(self, script: Sequence[str], restarts: int = 0) -> list[Started]:
        """The agents, begun together. script: what each process runs, `SOUND` or `DYING`."""
        port = free_port()
        return [self.start_on(number, port, script, restarts) for number in range(len(self.machines))]

    def start_on(self, number: int, port: int, script: Sequence[str], restarts: int) -> Started:
        """The agent of one machine."""
        machine = self.machines[number]
        rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{self.machines[0].address}:{port}"]
        of_machine = ["--local-addr", machine.address, "--rdzv-conf", f"is_host={int(number == 0)}"]
        nodes = ["--nnodes", str(len(self.machines)), "--nproc-per-node", "1", "--max-restarts", str(restarts)]
        job = [*script, "pretrain", str(self.store), "--out", str(self.out), *OPTIONS, *self.more]
        arguments = [*nodes, *rendezvous, *of_machine, *job]
        more = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "DYING": "machine"}
        if not machine.prefix:
            return Agent(arguments, {**more, **machine.environment})
        return subprocess.Popen(
            [*machine.prefix, sys.executable, "-m", "torch.distributed.run", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **more, **machine.environment},
        )  # fmt: skip

    def run(self, script: Sequence[str]) -> list[tuple[int, str]]:
        """Run to the end: each agent's exit code, and what it said."""
        return ended(self.start(script))


def ended(agents: Sequence[Started]) -> list[tuple[int, str]]:
    """Each agent's exit code and what it said, once all have ended."""
    said = [agent.communicate(timeout=SECONDS)[0] for agent in agents]
    return [(agent.returncode, lines) for agent, lines in zip(agents, said, strict=True)]


def checkpoints(out: Path) -> list[str]:
    return [path.name for path in RunDirectory(out).checkpoints()]


def main() -> int:
    with contextlib.ExitStack() as stack:
        try:
            machines = stack.enter_context(network_namespaces())
            print("two network namespaces with a cable between them")
        except (OSError, subprocess.CalledProcessError) as error:
            machines = [Machine(), Machine()]
            print(f"no network namespaces here ({error}): both agents are on the loopback")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_corpus(folder / "c.jsonl", documents=200)
        store = prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store").directory
        ((code, said),) = Agents(machines[:1], store, folder / "whole").run(SOUND)
        assert code == 0, said

        def like_whole(name: str, said: Sequence[tuple[int, str]]) -> None:
            assert all(code == 0 for code, _ in said), said
            print(f"{name}: parameters differ by {furthest(folder / name, folder / 'whole'):.1e} from one process's")
            assert furthest(folder / name, folder / "whole") < 1e-5

        like_whole("two", Agents(machines, store, folder / "two").run(SOUND))
        lost = Agents(machines, store, folder / "lost").run(DYING)
        line = next(line for line in lost[0][1].splitlines() if "lost the other" in line)
        print(f"the second machine dies at step 7: exit codes {[code for code, _ in lost]}; the first one says: {line}")
        assert all(code for code, _ in lost)
        assert checkpoints(folder / "lost") == ["step-00000005"]
        for name, number in (("on two again", 2), ("on the one that is left", 1)):
            shutil.copytree(folder / "lost", folder / name)
            like_whole(name, Agents(machines[:number], store, folder / name).run(SOUND))

        back = Agents(machines, store, folder / "back")
        port = free_port()
        agents = [back.start_on(number, port, DYING, restarts=1) for number in range(2)]
        agents[1].wait(SECONDS)
        agents[1] = back.start_on(1, port, SOUND, restarts=1)
        like_whole("back", ended(agents))
        print("the second machine comes back while the first one waits for it (--max-restarts 1): the run goes on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
