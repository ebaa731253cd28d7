"""What a config's numbers may be, declared in their types; `fields.check` holds them to it.

    steps: Count                   at least 1
    beta1: Decay                   at least 0, below 1
    evaluate_every: int            at least 0, as every number of this project of which nothing else is said

A class with rules over several fields has a method `check()`, whose UserError names the field and the remedy.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, get_args


@dataclass(frozen=True)
class Limits:
    """The numbers from `low` to `high`; `above` and `below` leave out the ends themselves."""

    low: float = 0.0
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, number: float) -> bool:
        low = number > self.low if self.above else number >= self.low
        high = number < self.high if self.below else number <= self.high
        return low and high and math.isfinite(number)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        if self.high == math.inf:
            return low
        return f"{low} and " + (f"below {self.high:g}" if self.below else f"at most {self.high:g}")


Count = Annotated[int, Limits(1)]
"""At least 1."""
Positive = Annotated[float, Limits(above=True)]
"""Above 0."""
Share = Annotated[float, Limits(0, 1)]
"""From 0 to 1."""
Decay = Annotated[float, Limits(0, 1, below=True)]
"""From 0 to below 1."""
Signed = Annotated[float, Limits(-math.inf)]
"""Any finite number."""
WholeSigned = Annotated[int, Limits(-math.inf)]
"""Any whole number."""

ANY = Limits(-math.inf)


def of(hint: Any, unsaid: Limits) -> Limits:
    """What an annotation declares, or else `unsaid`."""
    if isinstance(hint, Limits):
        return hint
    found = (of(part, unsaid) for part in get_args(hint))
    return next((limits for limits in found if limits is not unsaid), unsaid)
