"""`jaxtrain run FOLDER`: the numbered configs of a recipe in order, like make."""

import importlib
import re
import time
from pathlib import Path

from jaxtrain import config as configs
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say


def config_files(folder: str | Path) -> list[Path]:
    """`1_collect.py`, `2_clean.py`, … by number."""
    numbered = {path: re.match(r"(\d+)_", path.name) for path in Path(folder).glob("*.py")}
    files = sorted((path for path, match in numbered.items() if match), key=lambda path: int(path.name.split("_")[0]))
    if not files:
        raise UserError(f"{folder} holds no numbered configs (1_collect.py, …); try `jaxtrain run configs/quickstart`")
    return files


def run(folder: str | Path) -> list[Path]:
    """Run every config; finished artifacts that still match are reused. Returns the artifacts."""
    files, begun, artifacts = config_files(folder), time.time(), []
    loaded = [configs.load(path) for path in files]  # a mistake in the last config shows before the first runs
    for number, (path, config) in enumerate(zip(files, loaded, strict=True), 1):
        stage = configs.stage_of(config)
        say(f"[{number}/{len(files)}] {stage}  {path}  ({time.time() - begun:.0f} s)")
        artifacts.append(importlib.import_module(f"jaxtrain.{stage}.run").run(config))
    if configs.stage_of(loaded[-1]) == "report":
        importlib.import_module("jaxtrain.report.run").show(artifacts[-1])
    say(f"finished in {time.time() - begun:.0f} s")
    return artifacts
