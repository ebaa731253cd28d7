"""SIGTERM and SIGINT ask a run to save and end; a second one ends it at once."""

import signal
import threading
from types import FrameType
from typing import Any

STOPPED = 75
"""Exit status of a run that was asked to end and has saved: the same command goes on (EX_TEMPFAIL)."""


class Stopped(SystemExit):
    """The run was asked to end and has saved; its exit status is `STOPPED`."""

    def __init__(self) -> None:
        super().__init__(STOPPED)


class StopSignals:
    """While it is entered, `asked` is the name of the first signal that came, or None."""

    def __init__(self) -> None:
        self.asked: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = signal.Signals(number).name
        signal.signal(number, self._before[signal.Signals(number)])  # the next one as it was before
