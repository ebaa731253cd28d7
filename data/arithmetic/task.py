"""Sums of two numbers of two digits, said from the units up: a benchmark and a reward, in one file."""

from jaxtrain.tasks.graders import exact
from jaxtrain.tasks.task import Exercise, Task


def parse(row):
    return Exercise(prompt=row["question"], graders={"exact": exact(row["answer"])}, chat=True, tokens=4)


task = Task(
    name="additions", version=1, metric="exact", path="tested.jsonl", practice="practised.jsonl", parse=parse
)
