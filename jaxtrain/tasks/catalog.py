"""Every task by its name, and the tasks of a user by their file."""

import runpy

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import multiple_choice, written
from jaxtrain.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (*multiple_choice.TASKS, *written.TASKS)}


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
