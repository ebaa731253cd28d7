"""Other places that show a run's numbers while it runs; `metrics.jsonl` is the record.

TensorBoard's files are written beside it: `tensorboard --logdir FOLDER`. W&B, MLflow and Trackio are services
of their own (`pip install jaxtrain[trackers]`): where their data goes is told by their own variables
(`WANDB_MODE=offline`, `MLFLOW_TRACKING_URI`, `TRACKIO_DIR`). A run that goes on after a kill is the same run
there: its identity is kept in `trackers.json`. They have no way back: steps taken again stand there twice.
"""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import jax
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.metrics import Line, Mirror

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
PROJECT = "jaxtrain"
IDENTITIES = "trackers.json"
FLUSH_SECONDS = 10.0


def open_trackers(names: Sequence[Tracker], folder: Path) -> list[Mirror]:
    """The trackers of a run whose artifact is `folder`; none on other processes than the first.

    Errors: UserError for another name; ModuleNotFoundError where the package of one is not installed.
    """
    makers = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}
    if unknown := sorted(set(names) - set(makers)):
        raise UserError(f"trackers: no {unknown[0]!r}; choose of {', '.join(makers)}")
    return [makers[name](folder) for name in names] if jax.process_index() == 0 else []


def numbers(line: Line) -> dict[str, float]:
    """The finite numbers of a line by `<kind>/<name>`; a step's own are `train/<name>`."""
    kind = line.get("kind", "train")
    return {
        f"{kind}/{name}": float(value)
        for name, value in line.items()
        if name != "step" and isinstance(value, int | float) and math.isfinite(value)
    }


class EventFiles:
    """TensorBoard's `events.out.tfevents.<n>` in a folder: a file from every start or rollback on.

    Each begins with the step from which on TensorBoard forgets what earlier files have.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer: RecordWriter | None = None
        self._flushed = time.monotonic()

    def restart(self, lines: list[Line]) -> None:
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        number = len(list(self._folder.iterdir()))
        self._writer = RecordWriter(str(self._folder / f"events.out.tfevents.{number:05d}"))
        self._put(Event(file_version="brain.Event:2"))
        begin = lines[-1]["step"] + 1 if lines else 0
        self._put(Event(step=begin, session_log=SessionLog(status=SessionLog.START)))

    def write(self, line: Line) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers(line).items()]
        self._put(Event(step=line["step"], summary=Summary(value=values)))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.flush()
            self._writer.close()
            self._writer = None

    def _put(self, event: Event) -> None:
        assert self._writer is not None, "a log restarts before it is written"
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()


def _tensorboard(folder: Path) -> Mirror:
    files = EventFiles(folder / "tensorboard")
    return Mirror(files.write, files.close, files.restart)


def _wandb(folder: Path) -> Mirror:
    """A run of the project `jaxtrain`, its x-axis `step`."""
    import wandb  # pyrefly: ignore[missing-import]

    identity = _identity(folder, "wandb", lambda: uuid4().hex)
    asked = {"project": PROJECT, "name": _name(folder), "id": identity, "dir": str(folder)}
    run = wandb.init(resume="allow", **asked)
    run.define_metric("*", step_metric="step")
    return Mirror(lambda line: run.log({"step": line["step"], **numbers(line)}), run.finish)


def _mlflow(folder: Path) -> Mirror:
    """A run of the experiment `jaxtrain`."""
    import mlflow  # pyrefly: ignore[missing-import]

    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(PROJECT)
    experiment = found.experiment_id if found else client.create_experiment(PROJECT)
    create = lambda: client.create_run(experiment, run_name=_name(folder)).info.run_id  # noqa: E731
    run = _identity(folder, "mlflow", create)

    def write(line: Line) -> None:
        when = round(time.time() * 1000), line["step"]
        metrics = [mlflow.entities.Metric(name, value, *when) for name, value in numbers(line).items()]
        client.log_batch(run, metrics=metrics)

    return Mirror(write, lambda: client.set_terminated(run))


def _trackio(folder: Path) -> Mirror:
    """A run of the project `jaxtrain`."""
    import trackio  # pyrefly: ignore[missing-import]

    name = _identity(folder, "trackio", lambda: f"{_name(folder)}-{uuid4().hex[:8]}")
    trackio.init(project=PROJECT, name=name, resume="allow")
    return Mirror(lambda line: trackio.log(numbers(line), step=line["step"]), trackio.finish)


def _name(folder: Path) -> str:
    return folder.name.removesuffix(".partial")


def _identity(folder: Path, tracker: str, create: Any) -> str:
    """What the tracker knows the run by: as stored in the folder, else created and stored."""
    path = folder / IDENTITIES
    known = json.loads(path.read_text()) if path.is_file() else {}
    if tracker not in known:
        known[tracker] = create()
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    return known[tracker]
