"""A model's score on a task, with its error, beside chance, and apart for items that training text quotes."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.decode.dialogues import graded
from jaxtrain.document import Document, read_records, source_files
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.evaluate.score import centred, choice_accuracy, standard_error
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


def mean(grades: np.ndarray) -> Row:
    """`value`, `standard_error`, `items`; null where there is nothing to take a mean, or an error, of."""
    error = standard_error(grades)
    return {
        "value": float(np.mean(grades)) if len(grades) else None,
        "standard_error": None if np.isnan(error) else error,
        "items": len(grades),
    }


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
