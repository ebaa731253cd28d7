"""Probabilities of a classifier that the stage classify trained, as signals with limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jaxtrain.classify import linear
from jaxtrain.clean.filter import Filter, Limit, Range, Record
from jaxtrain.runtime.errors import UserError

_load = cache(linear.load)


@dataclass(frozen=True)
class Classifier(Filter):
    """Measures `score_NAME`, or `score_NAME_LABEL` of each label where there are more than two."""

    name: str
    """What it tells, for example `quality`."""
    folder: str
    """The classify artifact."""
    scores: dict[str, Range] = field(default_factory=dict)
    """Least and largest probability (0 to 1) by name of the signal without `score_`. None: no limit."""

    def __post_init__(self) -> None:
        if Path(self.folder, linear.DESCRIPTION).exists():  # else the stage names the folder
            known = self.signals()
            if unknown := sorted({f"score_{name}" for name in self.scores} - set(known)):
                raise UserError(f"Classifier {self.name!r} has no {unknown[0]}; it has {', '.join(known)}")

    def files(self) -> tuple[str, ...]:
        return (self.folder,)

    def labels(self) -> tuple[str, ...]:
        """Of the classifier; UserError where there is none."""
        return linear.labels(self.folder)

    def signals(self) -> tuple[str, ...]:
        labels = self.labels()
        if len(labels) == 2:
            return (f"score_{self.name}",)
        return tuple(f"score_{self.name}_{label}" for label in labels)

    def limits(self) -> Mapping[str, Limit]:
        reason = f"classifier {self.name}"
        return {f"score_{name}": Limit(*ends, reason, reason) for name, ends in self.scores.items()}

    def measure(self, record: Record) -> Mapping[str, float | None]:
        probabilities = _load(self.folder).probabilities(record.text).tolist()
        signals = self.signals()
        return dict(zip(signals, probabilities[-len(signals) :], strict=True))
