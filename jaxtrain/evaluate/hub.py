"""The benchmarks' files from the Hugging Face hub, once: `benchmarks="hub"`. Needs the extra `eval`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtrain.runtime.cluster import Others
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say
from jaxtrain.tasks import catalog
from jaxtrain.tasks.task import Task, bare

if TYPE_CHECKING:
    from jaxtrain.evaluate.run import EvaluateConfig

FOLDER = Path("data/hub")


def fetch(config: "EvaluateConfig", others: Others) -> "EvaluateConfig":
    """The config with the folder that now holds its tasks' files; what is there is not fetched again.

    Of several processes the first alone fetches.
    """
    for name in config.tasks if others.is_first else ():
        fetch_task(catalog.find(name), FOLDER)
    others.wait("benchmarks fetched")
    return dataclasses.replace(config, benchmarks=str(FOLDER))


def fetch_task(task: Task, folder: Path) -> None:
    """Write the task's rows, and those of its examples, as `.jsonl`."""
    try:
        import datasets  # pyrefly: ignore[missing-import]
    except ImportError:
        raise UserError(
            "the hub needs the package datasets; install it with `pip install 'jaxtrain[eval]'`"
        ) from None
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
