"""All stages of configs/tiny, run once for every test that reads their artifacts."""

import contextlib
import fcntl
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from jaxtrain import pipeline

REPOSITORY = Path(__file__).parents[1]
CONFIGS = REPOSITORY / "configs" / "tiny"


def workplace(folder: Path) -> Path:
    """A folder to run the configs in: their paths are relative, to `data` and `runs`."""
    folder.mkdir()
    (folder / "data").symlink_to(REPOSITORY / "data")
    return folder


def runs(folder: Path) -> Path:
    """Where its artifacts are, by the names of the configs."""
    return folder / "runs" / "tiny"


@cache
def _finished(base: Path) -> Path:
    """Of several processes that run tests the first makes it, and the others wait."""
    folder, made = base / "tiny", base / "tiny_made"
    with (base / "tiny_lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            with contextlib.chdir(workplace(folder)):
                pipeline.run(CONFIGS)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `runs/tiny` stands; only to be read."""
    base = tmp_path_factory.getbasetemp()
    return _finished(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture
def in_tiny(tiny: Path) -> Callable[[str], str]:
    """Paths of its artifacts by name: `in_tiny("2_clean")`."""
    return lambda name: str(tiny / "runs" / "tiny" / name)
