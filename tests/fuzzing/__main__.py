"""`python -m tests.fuzzing --inputs 100000`: every input in turn; the faults, with the seed that makes each again."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.fuzzing.run import faults

MEMORY_BYTES = 16 << 30  # a file may not make the process ask for more


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing")
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the first input; each has the next one")
    options = parser.parse_args()
    kinds: Counter[str] = Counter()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with tempfile.TemporaryDirectory() as folder:
        for fault in faults(Path(folder), range(options.seed, options.seed + options.inputs)):
            kinds[fault.error] += 1
            if kinds[fault.error] <= 3:
                print(f"seed {fault.seed}: {fault.description}: {fault.error}\n    {fault.place}", flush=True)
    print(
        f"{options.inputs:,} inputs, {sum(kinds.values()):,} faults" + "".join(f"\n{n:6} {e}" for e, n in kinds.items())
    )
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
