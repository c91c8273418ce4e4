"""`bothways` with a fault: the process of rank 1 kills itself (SIGKILL) at step 7, the first time it runs.

DYING=machine in the environment: its `torchrun` dies with it, as where a machine loses its power.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from bothways.cli import main
from bothways.train.step import Stepper, StepResult

whole = Stepper.step


def dying(self: Stepper, step: int, **options: Any) -> StepResult:
    if step == 7 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        if os.environ.get("DYING") == "machine":
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, step, **options)


if __name__ == "__main__":
    Stepper.step = dying  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
