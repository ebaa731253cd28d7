"""A model's score on a task, with its error, beside chance, and apart for items that training text quotes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.decode.dialogues import graded
from jaxtrain.document import Document, read_records, source_files
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say, track
from jaxtrain.tasks.environment import Episode
from jaxtrain.tasks.overlap import item_texts, quoted
from jaxtrain.tasks.task import Blank, Exercise, Item, Task, chance

Row = dict[str, Any]


def evaluate(
    scorer: Scorer,
    task: Task,
    data: str,
    *,
    items: int,
    unconditional: bool = False,
    is_quoted: Sequence[bool] | None = None,
    what: str = "",
) -> Row:
    """The first `items` items; is_quoted: which of them the training text quotes. what: the model's name."""
    loaded = task.load(data, items)
    grades = grade(scorer, task, loaded, unconditional, f"{what} {task.name}")
    if task.metric not in grades:
        raise UserError(f"task {task.name}: metric {task.metric!r} is none of {', '.join(grades)}")
    row = {
        "task": task.name,
        "metric": task.metric,
        **mean(grades[task.metric]),
        "chance": chance(loaded),
        "items": len(loaded),
        "shots": task.shots.count if task.shots else 0,
        "version": task.version,
        "scores": {name: mean(values) for name, values in grades.items()},
    }
    if is_quoted is not None:
        chosen = np.array(is_quoted[: len(loaded)], bool)
        row["overlapping"], row["clean"] = (mean(grades[task.metric][part]) for part in (chosen, ~chosen))
    score = f"{row['value']:.3f} ± {row['standard_error'] or 0:.3f}, chance {row['chance']:.3f}"
    say(f"  {what}  {task.name}: {score}")
    return row


def grade(
    scorer: Scorer, task: Task, items: Sequence[Any], unconditional: bool, what: str = ""
) -> dict[str, np.ndarray]:
    """Grades of the items by metric, float64 [items]."""
    if isinstance(items[0], Exercise | Episode):
        return graded(items, scorer.dialogues(items, what))
    if isinstance(items[0], Blank):
        found = scorer.pairs([(item.context, item.continuation) for item in items], what)
        return {"accuracy": np.array([float(likelihood.is_greedy) for likelihood in found])}
    if not isinstance(items[0], Item):
        raise UserError(f"task {task.name}: its items are graded by no stage of evaluate")
    values, answers = scorer.choices(items, what), [item.answer for item in items]
    grades = {
        "accuracy": choice_accuracy(values, answers),
        "accuracy_per_byte": choice_accuracy(values, answers, [item.lengths for item in items]),
    }
    if unconditional or task.metric == "accuracy_unconditional":
        alone = scorer.choices(items, what, is_alone=True)
        relative = [np.subtract(a, b).tolist() for a, b in zip(values, alone, strict=True)]
        grades["accuracy_unconditional"] = choice_accuracy(relative, answers)
    return grades


def choice_accuracy(
    loglikelihoods: Sequence[Sequence[float]],
    answers: Sequence[int],
    lengths: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """1 where the right choice is the likeliest, 0 elsewhere, 1/n where it is one of n; float64 [items].

    loglikelihoods: nats of each choice's text after its context, a list an item (items may have 3 or 5
    choices). lengths: bytes of each choice; where given, likelihoods are compared per byte, which removes the
    advantage of short choices (lm-eval's `acc_norm`, there by characters). Mean of the result = accuracy.
    """
    grades = np.zeros(len(answers))
    for item, (values, answer) in enumerate(zip(loglikelihoods, answers, strict=True)):
        scores = np.asarray(values, np.float64)
        if np.isnan(scores).any():
            raise ValueError(f"item {item}: a log-likelihood is nan; the model is broken there")
        if lengths is not None:
            scores = scores / np.maximum(np.asarray(lengths[item], np.float64), 1)
        best = scores == scores.max()
        grades[item] = best[answer] / best.sum()
    return grades


def mean(grades: np.ndarray) -> Row:
    """`value`, `standard_error`, `items`; null where there is nothing to take a mean, or an error, of."""
    value = float(np.mean(grades)) if len(grades) else None
    return {"value": value, "standard_error": standard_error(grades), "items": len(grades)}


def standard_error(values: Sequence[float] | np.ndarray) -> float | None:
    """Of the mean of independent values: sample standard deviation over √n; None for fewer than two."""
    values = np.asarray(values, np.float64)
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def centred(value: float, chance: float) -> float:
    """A score with chance at 0 and a perfect one at 1 (the scale of DCLM's CORE: Li et al. 2024)."""
    return (value - chance) / (1 - chance)


def aggregate(rows: Iterable[Row]) -> Row:
    """Mean of the tasks' scores, each centred: 0 is guessing, 1 is perfect. Tasks count alike."""
    rows = list(rows)
    errors = [(row["standard_error"] or 0.0) / (1 - row["chance"]) for row in rows]
    return {
        "value": float(np.mean([centred(row["value"], row["chance"]) for row in rows])),
        "standard_error": float(np.sqrt(np.square(errors).sum()) / len(rows)),
        "tasks": [row["task"] for row in rows],
    }


def contaminated(tasks: Iterable[Task], data: str, clean: str | Path) -> Mapping[str, list[bool]]:
    """Of each task, which items a document of the clean artifact quotes."""
    texts = {task.name: [list(item_texts(row)) for row in task.rows(data)] for task in tasks}
    documents = (
        record.text
        for file in source_files(Path(clean) / "documents")
        for record in track(list(read_records(file, Document)), f"overlap with {file.stem}")
    )
    verdicts = iter(quoted([text for of_task in texts.values() for text in of_task], documents))
    return {name: [next(verdicts) for _ in of_task] for name, of_task in texts.items()}
