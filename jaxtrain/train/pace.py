"""The lines of speed: tokens and FLOP/s of a device, where time went, memory, power."""

from typing import Any

import jax

from jaxtrain.runtime import perf
from jaxtrain.runtime.energy import Meter
from jaxtrain.runtime.goodput import Goodput


class Pace:
    """Adds up steps between two lines of kind `speed`.

    flops_per_token: of forward and backward, `runtime.cost.flops_per_token`; None: FLOP/s are left out.
    """

    def __init__(self, goodput: Goodput, flops_per_token: float | None, meter: Meter | None = None):
        self.goodput = goodput
        self._meter = meter or Meter()
        self._joules_before = self._meter.joules
        self._flops_per_token = flops_per_token
        self._tokens, self._seconds = 0, 0.0
        self._data_before = goodput.seconds["data"]

    def step(self, tokens: int, seconds: float) -> None:
        """A step of so many tokens in the global batch, padding included."""
        self._tokens += tokens
        self._seconds += seconds

    def line(self) -> dict[str, Any]:
        """Since the line before: speed of a device, share of time waiting for data. goodput: since step 0."""
        share = self.goodput.share
        data = self.goodput.seconds["data"] - self._data_before
        found: dict[str, Any] = {
            "kind": "speed",
            **perf.speed(self._tokens / max(1e-9, self._seconds), self._flops_per_token),
            "data_wait": data / max(1e-9, self._seconds),
            "goodput": share,
            "peak_memory_bytes": perf.peak_memory(),
            **self._power(),
            **{f"seconds/{part}": seconds for part, seconds in self.goodput.seconds.items()},
        }
        self._tokens, self._seconds, self._data_before = 0, 0.0, self.goodput.seconds["data"]
        return found

    def _power(self) -> dict[str, float | None]:
        """Watts of this machine and joules a token of its share, by kind of counter; None: there is none."""
        self._meter.update()
        joules = self._meter.joules
        spent = {kind: value - self._joules_before[kind] for kind, value in joules.items()}
        self._joules_before = joules
        found: dict[str, float | None] = {} if spent else {"watts": None, "joules_per_token": None}
        for kind, value in spent.items():
            found[f"watts/{kind}"] = value / max(1e-9, self._seconds)
            found[f"joules_per_token/{kind}"] = value * jax.process_count() / max(1, self._tokens)
        return found
