"""metrics.jsonl: one JSON object a line, the record of a run. Device values are read one step late."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxtrain.runtime.files import finite, write_whole
from jaxtrain.runtime.progress import say

Line = dict[str, Any]


@dataclass(frozen=True)
class Mirror:
    """Another place that shows the numbers; metrics.jsonl is the record."""

    write: Callable[[Line], object]
    close: Callable[[], object]
    restart: Callable[[list[Line]], object] = lambda lines: None
    """What was written so far is these lines: at the start, after a restart, after a rollback. Most services
    have no way back: what is written again stands twice."""


class MetricsLog:
    """Appends to `metrics.jsonl`; step n is fetched when step n+1 is logged, so the host never waits.

    resume_step: what a killed run wrote past this step, its checkpoint, is cut off.
    Of several processes the first alone writes; all read.
    """

    def __init__(self, path: Path, resume_step: int = 0, mirrors: Sequence[Mirror] = ()):
        self._path = path
        self._writes = jax.process_index() == 0
        self._mirrors = mirrors if self._writes else ()
        self._file: Any = None
        self._waiting: tuple[int, dict[str, Any]] | None = None
        self._last = time.perf_counter()
        self.kept, self.lost_seconds = self._cut(resume_step)
        """The lines that stood, and the seconds of the steps that were cut off."""

    def _cut(self, step: int, *, but: str = "") -> tuple[list[Line], float]:
        """The lines up to `step` (and of kind `but`), which alone stay, and the seconds of steps cut off."""
        text = self._path.read_text() if self._path.is_file() else ""
        whole = text.splitlines()[: text.count("\n")]  # the last may have been cut by the kill
        lines = [json.loads(line) for line in whole]
        kept = [line for line in lines if line["step"] <= step or (but and line.get("kind") == but)]
        lost = sum(line["seconds"] for line in lines if line["step"] > step and "seconds" in line)
        if self._writes:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, "".join(map(_text, kept)))
            self._file = self._path.open("a")
            for mirror in self._mirrors:
                mirror.restart(kept)
        return kept, lost

    def rewind(self, step: int, *, but: str) -> float:
        """The run goes back to `step`: later lines go, but those of kind `but`. Seconds of steps lost."""
        self._waiting = None
        if self._file is not None:
            self._file.close()
        self.kept, lost = self._cut(step, but=but)
        return lost

    def step(self, step: int, values: dict[str, Any]) -> dict[str, float] | None:
        """Log the device values of a step; returns those of the step before, now on the host."""
        before = self.flush()
        self._waiting = (step, values)
        return before

    def flush(self) -> dict[str, float] | None:
        """Write what waits."""
        if self._waiting is None:
            return None
        step, values = self._waiting
        self._waiting = None
        host = {name: float(value) for name, value in jax.device_get(values).items()}
        now = time.perf_counter()
        host["seconds"] = now - self._last
        self._last = now
        self.write(step, host)
        return {"step": step, **host}

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Write host values now (evaluations, events)."""
        line = {"step": step, **values}
        if self._writes:
            self._file.write(_text(line))
            self._file.flush()
            for mirror in self._mirrors:
                mirror.write(line)

    def pause(self) -> None:
        """Time spent since the last step (evaluation, samples) is not the next step's."""
        self._last = time.perf_counter()

    def close(self) -> None:
        """What still waits is not fetched: after an error it may never come."""
        if self._file is not None:
            self._file.close()
        for mirror in self._mirrors:
            mirror.close()


def _text(line: Line) -> str:
    return json.dumps(finite(line), allow_nan=False) + "\n"


def show(step: int, steps: int, values: dict[str, float], what: str = "step") -> None:
    """One console line of a step."""
    text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
    say(f"{what} {step:>5}/{steps}  {text}")
