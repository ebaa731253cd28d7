"""A trace of some steps, and a text table of where their time went, readable without a viewer."""

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax

from jaxtrain.runtime.progress import say

WARM = 3
"""Steps before the trace begins: the first ones allocate."""
ROWS = 30
CONTAINERS = ("while", "call", "conditional", "end: ")
"""Their time is that of the operations inside them."""

Result = TypeVar("Result")


class Profile:
    """`profile.around(take)` takes a step, and traces those from the fourth on; the table follows the last.

    folder: gets `profile/` with the trace (for XProf or Perfetto) and `profile.txt`. steps: 0 traces none.
    """

    def __init__(self, folder: Path, steps: int):
        self._folder, self._steps, self._taken = folder / "profile", steps, 0

    def around(self, take: Callable[[], Result], text: Callable[[], str]) -> Result:
        """take(): the step. text(): the compiled program, which says what each operation comes from."""
        if not self._steps or self._taken >= WARM + self._steps:
            return take()
        if self._taken == WARM:
            jax.profiler.start_trace(str(self._folder))
        result = take()
        self._taken += 1
        if self._taken >= WARM:  # nothing of an earlier step is in the trace
            jax.block_until_ready(result)
        if self._taken == WARM + self._steps:
            jax.profiler.stop_trace()
            written = table(self._folder, text(), self._steps)
            (self._folder / "profile.txt").write_text(written)
            say(f"{written}\nin {self._folder}")
        return result


def table(folder: Path, text: str, steps: int) -> str:
    """Operations of the newest trace under `folder` by their share of the time, most first."""
    trace = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    sources = dict(re.findall(r'%?([\w.\-]+) = .*?op_name="([^"]*)"', text))
    seconds: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
        for line in plane.lines:
            for event in line.events:
                # others than those of XLA's operations have no such word
                named = (str(value) for name, value in event.stats if name == "hlo_op")
                name = "" if event.name.startswith("end: ") else next(named, "")
                if name and not name.startswith(CONTAINERS):
                    what = described(name, sources.get(name, ""))
                    seconds[what] += event.duration_ns / 1e9
                    counts[what] += 1
    total = sum(seconds.values()) or 1.0
    rows = sorted(seconds, key=lambda what: -seconds[what])
    lines = [
        f"{total / steps:.4g} s of operations a step, of {steps} steps, all devices and threads together",
        f"{'share':>7}  {'ms/step':>9}  {'times':>7}  operation: where it comes from",
    ]
    for what in rows[:ROWS]:
        each = seconds[what] / steps * 1e3
        lines.append(f"{seconds[what] / total:>7.1%}  {each:>9.2f}  {counts[what] // steps:>7}  {what}")
    if len(rows) > ROWS:
        rest = sum(seconds[what] for what in rows[ROWS:])
        lines.append(f"{rest / total:>7.1%}  {rest / steps * 1e3:>9.2f}  {'':>7}  {len(rows) - ROWS} others")
    return "\n".join(lines) + "\n"


def described(name: str, source: str) -> str:
    """`multiply_fusion: backward, btd,df->btf/dot_general`: like operations of all layers are one row."""
    kind = re.sub(r"(\.clone|\.\d+|\.remat\d*)+$", "", name)
    if not source:
        return kind
    when = "backward" if "transpose(" in source else "forward" if "jvp(" in source else "update"
    if "rematted" in source:
        when = "again"
    ours = r"(?!jit|jvp|transpose|while|body|closed|ch)"
    parts = [part for part in source.split("/") if re.match(ours, part)]
    return f"{kind}: {when}, {'/'.join(parts[-2:])}"
