"""Where the wall time of a run went, and the share of it that was productive."""

import time
from typing import Any, Literal, get_args

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
