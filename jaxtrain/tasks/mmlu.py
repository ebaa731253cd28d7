"""MMLU: 57 subjects of school and profession, four choices (Hendrycks et al. 2021, arXiv:2009.03300).

    The following are multiple choice questions (with answers) about abstract algebra.

    Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over Q.
    A. 0
    B. 4
    C. 2
    D. 6
    Answer: B

`mmlu` shows five solved questions of the subject and scores the letters, as lm-eval does. A small model does
not know what letters are for: `mmlu_cloze` shows the question alone and scores the choices' texts.
"""

from typing import Any

from jaxtrain.tasks.task import Item, Shots, Task

LETTERS = "ABCD"


def parse(row: dict[str, Any]) -> Item:
    """`question`, `subject`, four `choices` and `answer`, 0 to 3."""
    return Item(
        contexts=(_question(row),) * 4,
        continuations=tuple(f" {letter}" for letter in LETTERS),
        answer=int(row["answer"]),
    )


def parse_cloze(row: dict[str, Any]) -> Item:
    """The same row; its choices' texts are scored."""
    return Item(
        contexts=(f"Question: {row['question'].strip()}\nAnswer:",) * len(row["choices"]),
        continuations=tuple(f" {text}" for text in row["choices"]),
        answer=int(row["answer"]),
    )


def _question(row: dict[str, Any]) -> str:
    choices = "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, row["choices"], strict=True))
    return f"{row['question'].strip()}\n{choices}Answer:"


def _heading(row: dict[str, Any]) -> str:
    subject = row["subject"].replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {subject}.\n\n"


task = Task(
    name="mmlu",
    version=1,
    metric="accuracy",
    path="benchmarks/mmlu_test.jsonl.gz",
    parse=parse,
    hub=("cais/mmlu", "all", "test"),
    shots=Shots(
        count=5,
        render=lambda row: f"{_question(row)} {LETTERS[int(row['answer'])]}",
        path="benchmarks/mmlu_dev.jsonl.gz",
        split="dev",
        by="subject",
        heading=_heading,
    ),
)
cloze = Task(
    name="mmlu_cloze",
    version=1,
    metric="accuracy_per_byte",
    path="benchmarks/mmlu_test.jsonl.gz",
    parse=parse_cloze,
    hub=("cais/mmlu", "all", "test"),
)
