"""Checkpoints through Orbax: saved while training goes on, verified, restored onto any mesh.

A checkpoint of step n holds two trees: `model`, which later stages load alone, and `training`, the rest.
Beside them lies `checksums.txt`, written last: a checkpoint without it was cut short and does not count.
"""

import hashlib
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.distributed import from_first
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.files import flush, says_full, sha256, write_whole
from jaxtrain.runtime.limits import Limits
from jaxtrain.runtime.progress import say

CHECKSUMS = "checksums.txt"
ASIDE = ".corrupt"
"""Behind the name of a checkpoint that failed verification."""
HASHERS = 4  # threads; hashing and reading leave the interpreter to others


@dataclass(frozen=True, kw_only=True)
class KeepConfig:
    """Which checkpoints stay on disk; one that any of these names stays."""

    last: Annotated[int, Limits(2)] = 2
    """The newest so many; at least 2, so that there is one to fall back on."""
    best: bool = True
    """The one with the lowest held-out number."""
    every: int = 0
    """Those whose step is a multiple of this; 0: none."""

    def policy(self) -> Any:
        """As Orbax takes it."""
        policies = ocp.training.preservation_policies
        chosen: list[Any] = [policies.LatestN(self.last)]
        if self.best:
            lowest = policies.BestN(
                get_metric_fn=lambda found: -found["heldout"], n=1, keep_checkpoints_without_metrics=False
            )
            chosen.append(lowest)
        if self.every:
            chosen.append(policies.EveryNSteps(self.every))
        return policies.AnyPreservationPolicy(chosen)


class Checkpoints:
    """The checkpoints of one training run.

    Several processes share one folder: the first of them verifies and writes the checksums, and says to the
    others which step stands.
    """

    def __init__(self, folder: Path | str, keep: KeepConfig | None = None):
        self.folder = Path(folder).absolute()
        self._verified = self._verify()  # before Orbax reads what may be corrupt
        # Orbax logs from each of its threads, at length, what it raises and is told here in a line.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        context = ocp.Context()
        # float32 weights shrink by 8 %, and the save takes 1.7 x
        context.array.saving.use_compression = False
        self._orbax = ocp.training.Checkpointer(
            self.folder,
            context=context,
            preservation_policy=(keep or KeepConfig()).policy(),
            cleanup_tmp_directories=True,
        )
        self._thread = ThreadPoolExecutor(1, "checksums")
        self._saving: Future[None] | None = None
        self._failed = False

    @property
    def latest(self) -> int | None:
        """The newest step that verifies. Newer ones that do not are named and set aside.

        Errors: UserError where checkpoints stand and none verifies.
        """
        self.wait()
        if self._verified is None:
            self._verified = self._verify()
            self._orbax.reload()
        return None if self._verified < 0 else self._verified

    def _verify(self) -> int:
        """The newest whole step as the first process finds it; -1: there is none."""
        newest = _newest_whole(self.folder) if jax.process_index() == 0 else -1
        return int(from_first(np.array(newest, np.int32)))

    def newest(self, count: int) -> list[int]:
        """Steps of the newest so many checkpoints."""
        return sorted((found.step for found in self._orbax.checkpoints), reverse=True)[:count]

    def save(self, step: int, model: Any, training: Any, heldout: float | None = None) -> None:
        """Start writing step `step` in the background; a failure is raised at the next `check` or save.

        heldout: the number of which the lowest is kept; NaN is none.
        """
        self.wait()
        metrics = None if heldout is None or math.isnan(heldout) else {"heldout": heldout}
        with self._explained(step):
            response = self._orbax.save_checkpointables_async(
                step, {"model": model, "training": training}, force=True, metrics=metrics
            )
        assert response is not None, "a forced save is never declined"
        self._verified = None
        self._saving = self._thread.submit(self._finish, step, response)

    def _finish(self, step: int, response: Any) -> None:
        with self._explained(step):
            response.result()
            if jax.process_index() == 0:
                _write_checksums(self.folder / str(step))

    @contextmanager
    def _explained(self, step: int) -> Iterator[None]:
        """Turns whatever a save raises into one line with its remedy."""
        try:
            yield
        except Exception as error:
            self._failed = True
            cause = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            if says_full(error):
                cause = "no space is left"
            raise UserError(
                f"checkpoint of step {step} could not be written to {self.folder}: {cause[:300]}; "
                "checkpoints before it are untouched: free space or mend the disk, then run the same command"
            ) from error

    def check(self) -> None:
        """Raise what went wrong in the background; UserError naming the step and the cause."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Until what is being saved is on disk with its checksums."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def restore(self, model: Any, training: Any) -> tuple[int, Any, Any]:
        """The newest step that verifies, onto the shardings of the abstract trees given."""
        step = self.latest
        assert step is not None, "restore is asked for only where a checkpoint stands"
        try:
            loaded = self._orbax.load_checkpointables(step, {"model": model, "training": training})
        except (ValueError, KeyError) as error:  # Orbax: the trees do not have the same leaves
            other = (
                f"checkpoint of step {step} in {self.folder} has another optimizer's state, or older code's"
            )
            raise UserError(f"{other}; begin again with --restart, which sets the folder aside") from error
        return step, loaded["model"], loaded["training"]

    def discard_after(self, step: int) -> None:
        """Remove newer checkpoints: the run goes on from `step` another way."""
        self.wait()
        for found in list(self._orbax.checkpoints):
            if found.step > step:
                self._orbax.delete(found.step)
        self._verified = None

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            try:
                self._orbax.close()
            except Exception:
                if not self._failed:  # else it is, at length, what has been told
                    raise


def last_step(folder: Path) -> int:
    """The newest step of the run in `folder` whose checkpoint was written to its end; 0: there is none."""
    path = folder / "checkpoint"
    steps = _steps(path) if path.is_dir() else []
    return max((step for step in steps if (path / str(step) / CHECKSUMS).exists()), default=0)


def load_model(folder: Path | str, init: Callable[[], Any]) -> Any:
    """The newest `model` tree under `folder`, on the mesh that is set; `init()` says its shape.

    Errors: UserError where there is none, and where a file of it is not what was written.
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise UserError(f"no checkpoint folder {folder}; is its stage finished?")
    steps = _steps(path)
    if not steps:
        raise UserError(f"no complete checkpoint in {folder}")
    newest = path / str(steps[-1])
    if problem := _problem(newest, lambda path: not path.startswith("training/")):
        raise UserError(
            f"checkpoint of step {newest.name} in {folder} is corrupt ({problem}); make it again: its stage "
            "goes on from the one before: `jaxtrain STAGE CONFIG`, or `jaxtrain run FOLDER`"
        )
    abstract = meshes.abstract(init, jax.sharding.get_mesh())
    return ocp.load_checkpointables(newest, {"model": abstract})["model"]


def _newest_whole(folder: Path) -> int:
    """The newest step that verifies, -1 where none stands; what does not verify is removed or set aside."""
    steps = _steps(folder) if folder.exists() else []
    for step in [step for step in steps if not (folder / str(step) / CHECKSUMS).exists()]:
        say(f"checkpoint of step {step} was cut short: removed")
        shutil.rmtree(folder / str(step))
        steps.remove(step)
    wrong: dict[int, str] = {}
    newest = -1
    # of those behind the newest whole one, what Orbax reads of every checkpoint when it opens their folder
    is_metadata = lambda path: path.startswith(("_CHECKPOINT_METADATA", "metrics/"))  # noqa: E731
    for step in reversed(steps):
        problem = _problem(folder / str(step), None if newest < 0 else is_metadata)
        if problem is not None:
            wrong[step] = problem
        elif newest < 0:
            newest = step
    if wrong and newest < 0:
        told = "; ".join(f"step {step}: {problem}" for step, problem in wrong.items())
        remedy = "put a whole copy there, or begin again with --restart, which sets the folder aside"
        raise UserError(f"no checkpoint in {folder} verifies ({told}); {remedy}")
    for step, problem in wrong.items():
        aside = folder / f"{step}{ASIDE}"
        if aside.exists():
            shutil.rmtree(aside)
        (folder / str(step)).rename(aside)
        say(f"checkpoint of step {step} is corrupt ({problem}): set aside as {aside.name}")
    return newest


def _steps(folder: Path) -> list[int]:
    """Steps whose folder Orbax has committed, ascending."""
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def _files(step: Path) -> list[str]:
    """All that a checksum is kept of, by the path in the folder of the step."""
    found = (path for path in sorted(step.rglob("*")) if path.is_file() and path.name != CHECKSUMS)
    return [str(path.relative_to(step)) for path in found]


def _checksums(step: Path, files: list[str]) -> dict[str, str]:
    with ThreadPoolExecutor(HASHERS) as hashers:
        return dict(zip(files, hashers.map(sha256, [step / file for file in files]), strict=True))


def _write_checksums(step: Path) -> None:
    """`sha256  path` a line, as sha256sum prints it; the last line is the list's own.

    All of them are on disk before the list has its name.
    """
    for path in (step, *step.rglob("*")):
        flush(path)
    body = "".join(f"{digest}  {file}\n" for file, digest in _checksums(step, _files(step)).items())
    own = f"{hashlib.sha256(body.encode()).hexdigest()}  {CHECKSUMS}\n"
    write_whole(step / CHECKSUMS, body + own)
    flush(step.parent)


def _problem(step: Path, is_read: Callable[[str], bool] | None) -> str | None:
    """What differs from the list of checksums, or None. is_read: whose bytes are compared; None: all."""
    if not (step / CHECKSUMS).exists():
        return f"{CHECKSUMS} is absent: the save was cut short"
    body, _, own = (step / CHECKSUMS).read_bytes().rstrip(b"\n").rpartition(b"\n")
    body += b"\n"
    if own != f"{hashlib.sha256(body).hexdigest()}  {CHECKSUMS}".encode():
        return f"{CHECKSUMS} was changed"
    listed = {path: digest for digest, path in (line.split("  ", 1) for line in body.decode().splitlines())}
    if missing := [path for path in listed if not (step / path).is_file()]:
        return f"{missing[0]} is missing"
    if extra := [path for path in _files(step) if path not in listed]:
        return f"{extra[0]} is not in {CHECKSUMS}"
    found = _checksums(step, list(filter(is_read, listed)))
    return next((f"{path} was changed" for path, own in found.items() if own != listed[path]), None)
