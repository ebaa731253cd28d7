"""Every task by its name, and the tasks of a user by their file."""

import runpy

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import (
    arc_challenge,
    arc_easy,
    bbh,
    boolq,
    gsm8k,
    hellaswag,
    humaneval,
    lambada,
    mmlu,
    piqa,
    sciq,
    siqa,
    truthfulqa,
    winogrande,
)
from jaxtrain.tasks.task import Task

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        arc_easy.task,
        arc_challenge.task,
        boolq.task,
        gsm8k.task,
        hellaswag.task,
        humaneval.task,
        lambada.task,
        mmlu.task,
        mmlu.cloze,
        piqa.task,
        sciq.task,
        siqa.task,
        truthfulqa.task,
        winogrande.task,
        *bbh.tasks,
    )
}


def find(name: str) -> Task:
    """The task of that name, or the `task` that the Python file of that name defines (it is executed)."""
    if not name.endswith(".py"):
        if name not in TASKS:
            raise UserError(f"no task {name!r}; tasks are {', '.join(TASKS)}, or a .py file that defines one")
        return TASKS[name]
    try:
        task = runpy.run_path(name).get("task")
    except Exception as error:  # whatever goes wrong in the reader's own file, the reader can mend
        raise UserError(f"{name}: {type(error).__name__}: {error}") from error
    if not isinstance(task, Task):
        raise UserError(f"{name} defines no `task`; end it with `task = Task(...)` (jaxtrain/tasks/task.py)")
    return task
