"""How signals end a training: the first SIGINT or SIGTERM is answered at once, a second one ends the process."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Collects SIGINT and SIGTERM while its block runs; the second raises KeyboardInterrupt.

    Python runs a signal's handler when the operation at hand is over, and a backward pass takes seconds. So the answer
    comes from a thread, which a wake-up file descriptor tells of the signal. In a thread other than the main one, which
    alone may handle signals, nothing is collected.

    answer: called at the first signal, in that thread. last_words: what the KeyboardInterrupt says.
    """

    def __init__(self, answer: Callable[[signal.Signals], None], last_words: Callable[[], str]) -> None:
        self.caught: list[signal.Signals] = []
        self._answer, self._last_words = answer, last_words

    def __enter__(self) -> Self:
        try:
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        except ValueError:
            self._before = {}
            return self
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._descriptor_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._wait_for_signal, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._descriptor_before)
        self._writer.close()
        self._thread.join()
        self._reader.close()

    def _handle(self, number: int, frame: object) -> None:
        if self.caught:
            raise KeyboardInterrupt(self._last_words())
        self.caught.append(signal.Signals(number))

    def _wait_for_signal(self) -> None:
        while number := self._reader.recv(1):  # no byte: the other end is closed
            if number[0] in SIGNALS:
                self._answer(signal.Signals(number[0]))
                return
