"""The benchmarks' files from the Hugging Face hub, once: `benchmarks="hub"`. Needs the extra `eval`."""

from collections.abc import Sequence
from pathlib import Path

from jaxtrain.runtime.cluster import Others
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say
from jaxtrain.tasks.task import Task, bare

FOLDER = Path("data/hub")


def fetch(tasks: Sequence[Task], others: Others) -> str:
    """The folder that now holds the tasks' files; what is there is not fetched again.

    Of several processes the first alone fetches.
    """
    for task in tasks if others.is_first else ():
        fetch_task(task, FOLDER)
    others.wait("benchmarks fetched")
    return str(FOLDER)


def fetch_task(task: Task, folder: Path) -> None:
    """Write the task's rows, and those of its examples, as `.jsonl`."""
    import datasets  # pyrefly: ignore[missing-import]

    if task.hub is None:
        raise UserError(f"task {task.name} says no place on the hub; give the folder with its data")
    repository, config, split = task.hub
    splits = {"heldout": split, "practice": "train", "examples": task.shots.split if task.shots else ""}
    for what, path in task.paths.items():
        split = splits[what]
        file = folder / f"{bare(path)}.jsonl"
        if file.is_file():
            continue
        say(f"{task.name}: {split} of {repository} to {file}")
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            rows = datasets.load_dataset(repository, config, split=split)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{repository} could not be fetched ({error}); put {task.path} into a folder"
            ) from error
        rows.to_json(file, force_ascii=False)
