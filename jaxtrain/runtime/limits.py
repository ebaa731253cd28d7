"""What a config's numbers may be, declared in their types and checked before any data is read.

    steps: Count                   at least 1
    beta1: Decay                   at least 0, below 1
    evaluate_every: int            at least 0, as every number of this project of which nothing else is said

`check` walks a config and those inside it. A class with rules over several fields has a method `check()`.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

from jaxtrain.runtime.errors import UserError


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


@runtime_checkable
class Checked(Protocol):
    """A config with rules over several fields."""

    def check(self) -> None:
        """Errors: UserError naming the field and the remedy."""


def check(config: Any, prefix: str = "") -> None:
    """UserError naming the first field of `config`, or of a config inside it, that is out of its limits."""
    hints = get_type_hints(type(config), include_extras=True)
    unsaid = Limits() if type(config).__module__.startswith("jaxtrain.") else ANY
    for field in dataclasses.fields(config):
        name, value = prefix + field.name, getattr(config, field.name)
        limits = next((part for part in _parts(hints[field.name]) if isinstance(part, Limits)), unsaid)
        for key, member in _members(value):
            is_number = isinstance(member, (int, float)) and not isinstance(member, bool)
            if is_number and not limits.holds(member):
                raise UserError(f"{name}{key} is {member:g}; it is {limits}")
            if dataclasses.is_dataclass(member) and not isinstance(member, type):
                check(member, f"{name}{key}.")
    if isinstance(config, Checked):
        config.check()


def _parts(hint: Any) -> Iterator[Any]:
    """An annotation and all that it is made of."""
    yield hint
    if get_origin(hint) is not None:
        for part in get_args(hint):
            yield from _parts(part)


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    match value:
        case Mapping():
            yield from ((f".{key}", member) for key, member in value.items())
        case list() | tuple():
            yield from ((f"[{at}]", member) for at, member in enumerate(value))
        case _:
            yield "", value
