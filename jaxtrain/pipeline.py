"""`jaxtrain run FOLDER`: the numbered configs of a recipe in order, like make."""

import re
import time
from pathlib import Path

from jaxtrain import artifact
from jaxtrain import config as configs
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say


def config_files(folder: str | Path) -> list[Path]:
    """`1_collect.py`, `2_clean.py`, … by number."""
    numbered = {path: re.match(r"(\d+)_", path.name) for path in Path(folder).glob("*.py")}
    order = sorted((int(match[1]), path) for path, match in numbered.items() if match)
    if not order:
        raise UserError(
            f"{folder} holds no numbered configs (1_collect.py, …); try `jaxtrain run configs/quickstart`"
        )
    return [path for _, path in order]


def run(folder: str | Path, restart: bool = False) -> list[Path]:
    """Run every config; finished artifacts that still match are reused. Returns the artifacts.

    restart: what unfinished runs left is set aside, and their stages begin anew.
    """
    files, begun, artifacts = config_files(folder), time.monotonic(), []
    loaded = [
        configs.load(path) for path in files
    ]  # a mistake in the last config shows before the first runs
    for number, (path, config) in enumerate(zip(files, loaded, strict=True), 1):
        say(f"[{number}/{len(files)}] {configs.stage_of(config)}  {path}  ({time.monotonic() - begun:.0f} s)")
        room = configs.room_of(config)
        assert room is not None, "load has seen it"
        with artifact.restarting(restart):
            artifacts.append(room.run(config))
    if configs.stage_of(loaded[-1]) == "report":
        room.show(artifacts[-1])
    say(f"finished in {time.monotonic() - begun:.0f} s")
    return artifacts
