"""Every task by its name, and the tasks of a user by their file."""

import runpy
from collections.abc import Sequence

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import multiple_choice, worlds, written
from jaxtrain.tasks.gym import gym
from jaxtrain.tasks.task import Task
from jaxtrain.tasks.verifiers import openenv, verifiers

TASKS: dict[str, Task] = {task.name: task for task in (*multiple_choice.TASKS, *written.TASKS, *worlds.TASKS)}
PACKAGES = {"reasoning-gym": gym, "verifiers": verifiers, "openenv": openenv}
"""What makes a task of what stands behind `package:`; each needs an extra."""


def find(name: str) -> Task:
    """The task of that name, that of a package, or the `task` of a Python file (which is executed)."""
    package, _, rest = name.partition(":")
    if package in PACKAGES:
        return PACKAGES[package](rest)
    if not name.endswith(".py"):
        if name not in TASKS:
            known = ", ".join((*TASKS, *(f"{one}:…" for one in PACKAGES)))
            raise UserError(f"no task {name!r}; tasks are {known}, or a .py file with one")
        return TASKS[name]
    try:
        task = runpy.run_path(name).get("task")
    except Exception as error:  # whatever goes wrong in the reader's own file, the reader can mend
        raise UserError(f"{name}: {type(error).__name__}: {error}") from error
    if not isinstance(task, Task):
        raise UserError(f"{name} defines no `task`; end it with `task = Task(...)` (jaxtrain/tasks/task.py)")
    return task


def files(names: Sequence[str], data: str, without: str = "") -> dict[str, str]:
    """What an artifact reads of tasks: data files (but what `without` names), and the files of a user."""
    found = {
        f"task {task.name} {what}": str(task.file(data, what))
        for task in map(find, names)
        for what in task.paths
        if what != without
    }
    return found | {f"task file {name}": name for name in names if name.endswith(".py")}
