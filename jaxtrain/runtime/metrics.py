"""metrics.jsonl: one JSON object a line, the record of a run. Device values are read one step late."""

import json
import time
from pathlib import Path
from typing import Any

import jax

from jaxtrain.runtime.progress import say


class MetricsLog:
    """Appends to `metrics.jsonl`; step n is fetched when step n+1 is logged, so the host never waits.

    resume_step: what a killed run wrote past this step, its checkpoint, is cut off.
    """

    def __init__(self, path: Path, resume_step: int = 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]  # the last may have been cut by the kill
        kept = [line for line in whole if json.loads(line)["step"] <= resume_step]
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text("".join(kept))
        temporary.replace(path)
        self._file = path.open("a")
        self._waiting: tuple[int, dict[str, Any]] | None = None
        self._last = time.perf_counter()

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
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def pause(self) -> None:
        """Time spent since the last step (evaluation, samples) is not the next step's."""
        self._last = time.perf_counter()

    def close(self) -> None:
        self.flush()
        self._file.close()


def show(step: int, steps: int, values: dict[str, float], what: str = "step") -> None:
    """One console line of a step."""
    text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
    say(f"{what} {step:>5}/{steps}  {text}")
