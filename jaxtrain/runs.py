"""`jaxtrain runs`: what stands in a folder of runs, how big it is, and what of it is stale."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxtrain import artifact
from jaxtrain.manifest import Manifest
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.terminal import visible

PARTIAL = ".partial"


@dataclass(frozen=True, kw_only=True)
class RunsConfig:
    """The artifacts below a folder, with their size and state. Stale is what was made of an artifact that
    does not stand there any more, or of a stale one: `jaxtrain run` makes it again."""

    folder: str = "runs"
    """Folder of runs, or of one run's artifacts."""
    clean: bool = False
    """Ask whether to remove what is stale and what was set aside; nothing else is touched."""


def show(config: RunsConfig) -> None:
    """Print a line an artifact; with `clean`, ask and remove."""
    folder = Path(config.folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name one that holds artifacts, such as runs")
    states = find(folder)
    sizes = {path: _bytes(path) for path in states}
    table = Table("artifact", "stage", "MB", "written", "state")
    for path, (stage, state) in states.items():
        written = datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
        table.add_row(*(Text(visible(word)) for word in (str(path), stage, _mb(sizes[path]), written, state)))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{len(states)} in all, {_mb(sum(sizes.values()))} MB")
    useless = [path for path, (_, state) in states.items() if state.startswith(("stale", "set aside"))]
    if not config.clean or not useless:
        return
    console.print(f"{len(useless)} stale or set aside, {_mb(sum(sizes[path] for path in useless))} MB")
    if input("remove them? [y/N] ").strip().lower() == "y":
        for path in useless:
            shutil.rmtree(path)


def find(folder: Path) -> dict[Path, tuple[str, str]]:
    """Stage and state of each artifact below the folder, finished or not."""
    made: dict[Path, Manifest] = {}
    states: dict[Path, tuple[str, str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_dir()):
        if path.name.endswith(PARTIAL) and (path / artifact.STARTED).is_file():
            states[path] = "", "unfinished: the same command goes on with it"
        elif manifest := artifact.read_manifest(path):
            states[path] = manifest["stage"], "set aside" if artifact.is_aside(path) else "stands"
            if not artifact.is_aside(path):
                made[path] = manifest
    return states | {path: (made[path]["stage"], why) for path, why in _stale(made).items()}


def _stale(made: Mapping[Path, Manifest]) -> dict[Path, str]:
    """Why those that are stale are."""
    found: dict[Path, str] = {}
    while True:
        standing = {manifest["fingerprint"] for path, manifest in made.items() if path not in found}
        more = {
            path: f"stale: its {name} stands here no more"
            for path, manifest in made.items()
            for name in manifest.get("artifacts", ())
            if path not in found and manifest["inputs"][name] not in standing
        }
        if not more:
            return found
        found |= more


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"
