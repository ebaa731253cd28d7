"""241 questions with short answers, asked as a user asks them; right where one of the answers is said.

They were written for this recipe, before any model was trained with it.
"""

import re

from jaxtrain.tasks.graders import form
from jaxtrain.tasks.task import Exercise, Task


def parse(row):
    answers = "|".join(re.escape(answer) for answer in row["answers"])
    said = form(re.compile(rf"(?<![^\W_])(?:{answers})(?![^\W_])", re.IGNORECASE))
    return Exercise(prompt=row["question"], graders={"said": said}, chat=True, tokens=32)


task = Task(name="questions", version=1, metric="said", path="questions.jsonl", parse=parse)
