"""Where the wall time of a run went, and its lines of speed: tokens and FLOP/s of a device, memory, power."""

import time
from datetime import timedelta
from typing import Any, Literal, get_args

import jax

from jaxtrain.runtime import cost
from jaxtrain.runtime.energy import JOULES, Meter

Part = Literal["start", "data", "rollout", "steps", "evaluate", "save", "lost"]
PARTS: tuple[Part, ...] = get_args(Part)


class Goodput:
    """`turn("data")` says what the run does from now on; the seconds until the next turn are that part's.

    start: until the first batch is there, imports aside. data: the host waits for a batch; the device still
    works on the step before, so this is the most that data can have cost. rollout: answers are sampled and
    scored. steps: the first compiles. lost: steps that were refused, rolled back, or made again after a kill.
    What a machine stood still between two runs is not counted.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._part: Part = "start"
        self._since = time.perf_counter()

    def carry(self, lines: list[dict[str, Any]], lost: float) -> None:
        """Earlier runs of the same training: their last line of speed, and the seconds of steps cut off."""
        speeds = [line for line in lines if line.get("kind") == "speed"]
        for part in PARTS if speeds else ():
            self.seconds[part] += speeds[-1].get(f"seconds/{part}", 0.0)
        self.seconds["lost"] += lost

    def turn(self, part: Part) -> None:
        now = time.perf_counter()
        self.seconds[self._part] += now - self._since
        self._part, self._since = part, now

    def lose(self, seconds: float) -> None:
        """Steps that took so long count for nothing."""
        self.seconds["lost"] += seconds
        self.seconds["steps"] -= seconds

    @property
    def share(self) -> float:
        """Productive share: rollouts and steps that stayed, of all."""
        self.turn(self._part)
        productive = self.seconds["rollout"] + max(0.0, self.seconds["steps"])
        return productive / max(1e-9, sum(self.seconds.values()))


class Pace:
    """Adds up steps between two lines of kind `speed`.

    flops_per_token: of forward and backward, `runtime.cost.flops_per_token`; None: FLOP/s are left out.
    microbatches: parts of a batch, of which a step may have computed the first alone.
    peak_flops: of one device; None: by its name.
    """

    def __init__(
        self,
        goodput: Goodput,
        flops_per_token: float | None,
        microbatches: int = 1,
        peak_flops: float | None = None,
        meter: Meter | None = None,
    ):
        self.goodput = goodput
        self._meter = meter or Meter()
        self._energy_before = self._meter.kilowatt_hours
        self._flops_per_token, self._microbatches = flops_per_token, microbatches
        self._peak_flops = peak_flops or cost.device(jax.devices()[0].device_kind)[0]
        self._tokens, self._seconds = 0, 0.0
        self._data_before = goodput.seconds["data"]
        self._first: tuple[float, float] | None = None  # the first step, which compiles, and when it was done

    def foot(self, line: dict[str, float], last: int) -> str:
        """How far the run is after a step's line, how fast, and how long steps like these will take."""
        step, now = line["step"], time.monotonic()
        first, then = self._first = self._first or (step, now)
        left = timedelta(seconds=round((last - step) * (now - then) / max(1, step - first)))
        rate = f"{line['targets'] / line['seconds']:,.0f} targets/s"
        how_long = f"  {left} left" if step > first else ""
        return f"step {step:.0f}/{last}  {step / last:.0%}  loss {line['loss']:.4g}  {rate}{how_long}"

    def step(self, tokens: int, line: dict[str, float]) -> None:
        """A step's line, with the tokens of its global batch, padding included."""
        computed = line.get("microbatches", self._microbatches) / self._microbatches
        self._tokens += round(computed * tokens)
        self._seconds += line["seconds"]

    def line(self) -> dict[str, Any]:
        """Since the line before: speed of a device, share of time waiting for data. goodput: since step 0.

        Model FLOPs utilisation leaves out work done again in the backward pass to save memory; it is None
        where the peak is unknown. Memory: most bytes ever in use on a device of this process; None on CPUs.
        """
        share = self.goodput.share
        data = self.goodput.seconds["data"] - self._data_before
        each = self._tokens / max(1e-9, self._seconds) / jax.device_count()
        found: dict[str, Any] = {"kind": "speed", "tokens_per_second_per_device": each}
        if self._flops_per_token is not None:
            flops = each * self._flops_per_token
            found["tflops_per_device"] = flops / 1e12
            found["mfu"] = flops / self._peak_flops if self._peak_flops else None
        memory = [device.memory_stats() for device in jax.local_devices()]
        found |= {
            "data_wait": data / max(1e-9, self._seconds),
            "goodput": share,
            "peak_memory_bytes": max((stats["peak_bytes_in_use"] for stats in memory if stats), default=None),
            **self._power(),
            **{f"seconds/{part}": seconds for part, seconds in self.goodput.seconds.items()},
        }
        self._tokens, self._seconds, self._data_before = 0, 0.0, self.goodput.seconds["data"]
        return found

    def _power(self) -> dict[str, float | None]:
        """Watts of this machine and joules a token of its share, by kind of counter; None: there is none."""
        self._meter.update()
        energy = self._meter.kilowatt_hours
        spent = {kind: (value - self._energy_before[kind]) * JOULES for kind, value in energy.items()}
        self._energy_before = energy
        found: dict[str, float | None] = {} if spent else {"watts": None, "joules_per_token": None}
        for kind, value in spent.items():
            found[f"watts/{kind}"] = value / max(1e-9, self._seconds)
            found[f"joules_per_token/{kind}"] = value * jax.process_count() / max(1, self._tokens)
        return found
