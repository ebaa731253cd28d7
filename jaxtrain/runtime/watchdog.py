"""A run that hangs ends itself: every phase has a limit, and a thread that waits for it to pass."""

import faulthandler
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

HUNG = 124
"""Exit status of a run that its watchdog ended, as `timeout` has it."""


@dataclass(frozen=True, kw_only=True)
class WatchdogConfig:
    """How long each part of a run may take before it counts as hung; 0: as long as it likes."""

    start_minutes: float = 60.0
    """From the beginning (or a rollback) to the second step: restoring and compiling."""
    step_minutes: float = 15.0
    """A step, its batch included."""
    save_minutes: float = 30.0
    """Waiting for a checkpoint, or evaluating."""


class Watchdog:
    """`phase("step")` says what the run begins now; past its limit all stacks are printed and the run ends.

    A thread cannot interrupt a device or a collective that never returns, so the process exits at once with
    status 124; the stacks are in `hang.txt` too. The last checkpoint stands.
    """

    def __init__(self, config: WatchdogConfig, folder: Path):
        self._config, self._folder = config, folder
        self._changed = threading.Condition()
        self._phase, self._deadline, self._closed = "start", float("inf"), False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self.phase("start")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def phase(self, name: str) -> None:
        """The run begins `name`: start, step or save. The clock starts anew."""
        minutes = self._limit(name)
        with self._changed:
            self._phase = name
            self._deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
            self._changed.notify()

    def _limit(self, phase: str) -> float:
        return getattr(self._config, f"{phase}_minutes")

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    self._end()
                self._changed.wait(min(left, threading.TIMEOUT_MAX))

    def _end(self) -> None:
        message = (
            f"hung: {self._phase} took longer than its {self._limit(self._phase):g} minutes; stacks of all "
            f"threads follow and are in {self._folder / 'hang.txt'}; the last checkpoint stands\n"
        )
        with (self._folder / "hang.txt").open("w") as file:
            for out in (file, sys.__stderr__):
                if out is not None:
                    out.write(message)
                    out.flush()
                    faulthandler.dump_traceback(out, all_threads=True)
        os._exit(HUNG)
