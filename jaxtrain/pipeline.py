"""`jaxtrain run FOLDER`: the numbered configs of a recipe in order, like make."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxtrain import artifact
from jaxtrain import config as configs
from jaxtrain.runtime import cluster
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say

ON_ONE_DEVICE = ("classify", "report")
"""Stages that the first process makes alone, with JAX."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Runs the numbered configs of a folder in order: 1_collect.py, 2_clean.py, … A stage whose config and
    inputs have not changed is reused. Interrupted? The same command goes on where it stopped."""

    folder: str
    """The recipe: a folder of numbered configs."""
    scale: str = ""
    """Its size, one of those that its scales.toml declares, as tiny of configs/speedrun: all its configs are
    read at that scale, and write to runs/FOLDER-SCALE; empty: the first, or that it has none."""
    restart: bool = False
    """A stage that was interrupted begins anew; what it had is kept beside it."""


def run_folder(config: RunConfig) -> None:
    """`jaxtrain run`."""
    run(config.folder, config.restart, config.scale)


def config_files(folder: str | Path) -> list[Path]:
    """`1_collect.py`, `2_clean.py`, … by number."""
    numbered = {path: re.match(r"(\d+)_", path.name) for path in Path(folder).glob("*.py")}
    order = sorted((int(match[1]), path) for path, match in numbered.items() if match)
    if not order:
        remedy = "`jaxtrain init NAME --from quickstart` writes some"
        raise UserError(f"{folder} holds no numbered configs (1_collect.py, …); {remedy}")
    return [path for _, path in order]


def run(folder: str | Path, restart: bool = False, scale: str = "") -> list[Path]:
    """Run every config; finished artifacts that still match are reused. Returns the artifacts.

    restart: what unfinished runs left is set aside, and their stages begin anew.
    scale: of those that the folder declares; empty: its first.
    """
    files, begun, artifacts = config_files(folder), time.monotonic(), []
    # all at once: a mistake in the last config shows before the first runs
    loaded = [configs.load(path, scale) for path in files]
    for number, (path, config) in enumerate(zip(files, loaded, strict=True), 1):
        say(f"[{number}/{len(files)}] {configs.stage_of(config)}  {path}  ({time.monotonic() - begun:.0f} s)")
        artifacts.append(make(config, restart))
    if configs.stage_of(loaded[-1]) == "report":
        _room(loaded[-1]).show(artifacts[-1])
    say(f"finished in {time.monotonic() - begun:.0f} s: {artifacts[-1]}")
    say_next(loaded, artifacts)
    return artifacts


def say_next(made_by: list[Any], artifacts: list[Path]) -> None:
    """What there is to do with artifacts of these configs: the last model that talks, and the page."""
    models = [
        f"`jaxtrain chat {folder}`"
        for config, folder in zip(made_by, artifacts, strict=True)
        if (folder / "model.json").is_file() and type(config).__name__ != "RewardConfig"
    ]
    say(f"next: {', '.join([*models[-1:], f'`jaxtrain report {artifacts[-1].parent}`'])}")


def make(config: Any, restart: bool = False) -> Path:
    """The artifact of one config.

    Of several processes the first makes it alone while the others wait, unless the stage computes on a mesh.
    """
    run = _room(config).run
    with artifact.restarting(restart):
        if cluster.find(os.environ) is None:
            return run(config)
        import jax  # which not every stage needs

        from jaxtrain.runtime import distributed

        others = distributed.join()
        if configs.stage_of(config) in ON_ONE_DEVICE:
            jax.devices()  # which JAX finds at its first computation, and only on all processes at once
        is_together = hasattr(config, "train") or hasattr(config, "mesh")
        made = run(config) if is_together or others.is_first else Path(config.out)
        others.wait(f"{made} made")
        return made


def _room(config: Any) -> ModuleType:
    room = configs.room_of(config)
    assert room is not None, "load has seen it"
    return room
