"""CORE, the metric of DCLM (Li et al. 2024, arXiv:2406.11794), from a bundle, scored as nanochat does.

    core.yaml            of each task: label, kind, data file, number of examples, delimiter
    eval_meta_data.csv   of each task: what guessing gives, in percent
    eval_data/           the items, an object a line

An item comes behind solved examples, drawn from the same file by its number. Multiple choice and schemas
are won by the likeliest choice per token; a language-modelling item is right where every token is the first
guess. CORE is the mean over 22 tasks of the centred accuracies: 0 is guessing, 1 is perfect.
"""

import csv
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from jaxtrain.evaluate.benchmarks import aggregate, centred, mean
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say
from jaxtrain.tasks.task import read_rows

TASKS = Path(__file__).with_name("core.txt").read_text().split()
"""The mean over fewer is not called CORE."""
CHOICES, SCHEMA, LANGUAGE = "multiple_choice", "schema", "language_modeling"
Row = dict[str, Any]
SIDES: dict[str, Callable[[Row], tuple[list[str], list[str], int]]] = {
    CHOICES: lambda item: ([item["query"]] * len(item["choices"]), item["choices"], item["gold"]),
    SCHEMA: lambda item: (
        item["context_options"],
        [item["continuation"]] * len(item["context_options"]),
        item["gold"],
    ),
    LANGUAGE: lambda item: ([item["context"].strip()], [item["continuation"]], 0),
}
"""Of an item of each kind: what stands before and behind the delimiter in each choice, and the right one."""


@dataclass(frozen=True, kw_only=True)
class CoreConfig:
    """The 22 tasks of DCLM's CORE."""

    folder: str = ""
    """The evaluation bundle, with core.yaml, eval_meta_data.csv and eval_data; empty: CORE is left out."""
    items: int = 0
    """Items of each task at most, of its shuffled file; 0: all."""


@dataclass(frozen=True)
class Part:
    """A task of the bundle."""

    label: str
    kind: str
    file: Path
    shots: int
    delimiter: str
    chance: float
    """Between 0 and 1."""

    def items(self, most: int) -> list[Row]:
        """Shuffled by the seed that everyone uses; the first `most` of them, 0: all."""
        items = read_rows(self.file)
        for number, item in enumerate(items, 1):
            try:
                self.solved(item)
                self.asked(item)
            except (KeyError, IndexError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{self.file}, line {number} is no {self.kind} item ({type(error).__name__}: {error}); "
                    "restore the file"
                ) from error
        random.Random(1337).shuffle(items)
        items = items[:most] if most else items
        if len(items) <= self.shots:
            raise UserError(
                f"{self.file}: {len(items)} items are too few for {self.shots} examples; ask for more"
            )
        return items

    def solved(self, item: Row) -> str:
        """The item with its answer, as an example."""
        before, behind, gold = SIDES[self.kind](item)
        return before[gold] + self.delimiter + behind[gold]

    def asked(self, item: Row) -> list[str]:
        """A text a choice; of language modelling the context, and the context with its continuation."""
        before, behind, _ = SIDES[self.kind](item)
        context = [(before[0] + self.delimiter).rstrip()] if self.kind == LANGUAGE else []
        return context + [one + self.delimiter + other for one, other in zip(before, behind, strict=True)]

    def texts(self, items: Sequence[Row], at: int) -> list[str]:
        """What item `at` asks, behind its examples."""
        others = [other for other in range(len(items)) if other != at]
        examples = random.Random(1234 + at).sample(others, self.shots)
        before = "".join(f"{self.solved(items[example])}\n\n" for example in examples)
        return [before + text for text in self.asked(items[at])]

    def pairs(self, texts: Sequence[Sequence[int]], length: int) -> list[tuple[list[int], list[int]]]:
        """Context and continuation of each choice, at most `length` ids together; the context's end is kept.

        texts: ids. Choices begin where the texts first differ, the continuation of a schema where their
        common end begins.
        """
        if self.kind == LANGUAGE:
            parts, texts = [len(commonprefix(texts))], texts[1:]
        elif self.kind == SCHEMA:
            end = len(commonprefix([text[::-1] for text in texts]))
            parts = [len(text) - end for text in texts]
        else:
            parts = [len(commonprefix(texts))] * len(texts)
        cut = []
        for text, part in zip(texts, parts, strict=True):
            part = max(1, min(part, len(text) - 1))
            context, continuation = list(text[:part]), list(text[part:])[: length - 1]
            cut.append((context[-(length - len(continuation)) :], continuation))
        return cut


def read(folder: str | Path) -> tuple[list[Part], list[str]]:
    """The tasks of a bundle whose data is there, and the labels of CORE's others."""
    folder = Path(folder)
    listing, guesses = folder / "core.yaml", folder / "eval_meta_data.csv"
    try:
        tasks = yaml.safe_load(listing.read_text("utf-8"))["icl_tasks"]
        with guesses.open(encoding="utf-8", newline="") as file:
            chance = {row["Eval Task"]: float(row["Random baseline"]) / 100 for row in csv.DictReader(file)}
        parts = [
            Part(
                label=task["label"],
                kind=task["icl_task_type"],
                file=folder / "eval_data" / task["dataset_uri"],
                shots=int(task["num_fewshot"][0]),
                delimiter=task.get("continuation_delimiter", " "),
                chance=chance[task["label"]],
            )
            for task in tasks
        ]
    except (OSError, yaml.YAMLError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{folder} is no evaluation bundle ({type(error).__name__}: {error}); it needs core.yaml, "
            "eval_meta_data.csv and eval_data"
        ) from error
    if unknown := [part for part in parts if part.kind not in SIDES]:
        raise UserError(f"{listing}: {unknown[0].label} is of the unknown kind {unknown[0].kind!r}")
    there = [part for part in parts if part.label in TASKS and part.file.is_file()]
    if not there:
        raise UserError(f"{folder}/eval_data has no file of CORE's tasks; unpack the bundle there")
    found = {part.label for part in there}
    return there, [label for label in TASKS if label not in found]


def measure(scorer: Scorer, config: CoreConfig, what: str = "") -> dict[str, list[Row]]:
    """`core`, one row: `name`, `value`, `standard_error`, a row a task in `tasks`, labels in `absent`."""
    if not config.folder:
        return {}
    (parts, absent), tasks = read(config.folder), []
    for part in parts:
        items = part.items(config.items)
        found = score(scorer, part, items, f"{what} {part.label}".strip())
        row = mean(grade(part, items, found))
        told = {"task": part.label, "shots": part.shots, "chance": part.chance}
        tasks.append(told | row | {"centred": centred(row["value"], part.chance)})
    is_whole = not absent and not config.items
    name = "CORE" if is_whole else f"CORE of {len(tasks)} of {len(TASKS)} tasks"
    name = f"{name}, at most {config.items} items a task" if config.items else name
    row = {"name": name, **aggregate(tasks), "tasks": tasks, "absent": absent}
    missing = f"; absent: {', '.join(absent)}" if absent else ""
    say(f"  {what}  {name}: {row['value']:.4f} ± {row['standard_error']:.4f}{missing}")
    return {"core": [row]}


def grade(part: Part, items: Sequence[Row], found: Sequence[list[tuple[float, bool]]]) -> np.ndarray:
    """1 where an item is answered rightly, else 0; float64 [items]. found: their scores."""
    if part.kind == LANGUAGE:
        return np.array([float(is_greedy) for ((_, is_greedy),) in found])
    picked = [int(np.argmax([nats for nats, _ in of_item])) for of_item in found]
    return np.array([float(pick == item["gold"]) for pick, item in zip(picked, items, strict=True)])


def score(scorer: Scorer, part: Part, items: Sequence[Row], what: str = "") -> list[list[tuple[float, bool]]]:
    """Of each choice of each item: mean nats a token, and whether every token is the first guess."""
    start = scorer.start or [scorer.tokenizer.bos]
    texts = [part.texts(items, at) for at in range(len(items))]
    ids = iter(scorer.tokenizer.encode_batch([text for of_item in texts for text in of_item]))
    asked = [part.pairs([[*start, *next(ids)] for _ in of_item], scorer.length) for of_item in texts]
    pairs = [pair for of_item in asked for pair in of_item]
    found = zip(scorer.likelihoods(pairs, what), pairs, strict=True)
    means = iter([(one.nats / len(continuation), one.is_greedy) for one, (_, continuation) in found])
    return [[next(means) for _ in of_item] for of_item in asked]
