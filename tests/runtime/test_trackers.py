"""What trackers are told of a run that was killed, went on and rolled back; no network."""

import json
import math
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from jaxtrain.config import missing_extra
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.metrics import MetricsLog
from jaxtrain.runtime.trackers import open_trackers


def write_run(folder: Path, *trackers: str) -> None:
    """Steps 1 to 3, an evaluation, killed; from step 2 to step 4; a rollback to step 3, and on."""
    log = MetricsLog(folder / "metrics.jsonl", mirrors=open_trackers(trackers, folder))
    for step in (1, 2, 3):
        log.write(step, {"loss": 10.0 - step, "accepted": 1.0, "grad_norm": math.nan})
    log.write(3, {"kind": "heldout", "bits_per_byte": 2.5})
    log.close()
    log = MetricsLog(folder / "metrics.jsonl", resume_step=2, mirrors=open_trackers(trackers, folder))
    for step in (3, 4):
        log.write(step, {"loss": 20.0 - step})
    log.rewind(3, but="rollback")
    log.write(4, {"loss": 30.0})
    log.close()


LOSSES = {1: 9.0, 2: 8.0, 3: 17.0, 4: 30.0}


def events(path: Path) -> list[Event]:
    """TFRecord: length, its checksum, the message, its checksum."""
    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack_from("<Q", data)
        found.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return found


def test_tensorboard_files(tmp_path: Path):
    """A file a start; what is read under TensorBoard's rule is each step once."""
    write_run(tmp_path, "tensorboard")
    scalars: dict[tuple[str, int], float] = {}
    files = sorted((tmp_path / "tensorboard").iterdir())
    assert [path.name[-5:] for path in files] == ["00000", "00001", "00002"]
    for path in files:
        assert events(path)[0].file_version == "brain.Event:2"
        for event in events(path)[1:]:
            if event.session_log.status == SessionLog.START:
                scalars = {key: value for key, value in scalars.items() if key[1] < event.step}
            for value in event.summary.value:
                scalars[value.tag, event.step] = value.simple_value
    assert {step: value for (tag, step), value in scalars.items() if tag == "train/loss"} == LOSSES
    assert {tag for tag, _ in scalars} == {"train/loss", "train/accepted"}  # the evaluation was cut off


def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="no 'comet'; choose of tensorboard, wandb, mlflow, trackio"):
        open_trackers(["comet"], tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ModuleNotFoundError) as error:
        open_trackers(["wandb"], tmp_path)
    told = "this needs wandb, which is not installed: `pip install 'jaxtrain[trackers]'`"
    assert missing_extra(error.value) == told


@pytest.mark.peers
def test_tensorboard_reads_it(tmp_path: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write_run(tmp_path, "tensorboard")
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert {event.step: event.value for event in found.Scalars("train/loss")} == LOSSES


def leveldb_log(path: Path) -> list[bytes]:
    """The records of a W&B file: LevelDB's log, in blocks of 32 KiB, behind seven bytes."""
    data, found, at, pieces = path.read_bytes(), [], 7, b""
    while at + 7 <= len(data):
        if (left := -at % 32768) and left < 7:  # no header fits: the next block
            at += left
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        pieces += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            found.append(pieces)
            pieces = b""
    return found


@pytest.mark.peers
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    write_run(tmp_path, "wandb")
    told, runs = [], set()
    for path in sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb")):
        for record in map(messages.Record.FromString, leveldb_log(path)):
            runs |= {record.run.run_id} - {""}
            values = {
                item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item
            }
            if "train/loss" in values:
                told.append((values["step"], values["train/loss"]))
    assert sorted(told) == sorted([(1, 9.0), (2, 8.0), (3, 7.0), (3, 17.0), (4, 16.0), (4, 30.0)])
    assert runs == {json.loads((tmp_path / "trackers.json").read_text())["wandb"]}


@pytest.mark.peers
def test_mlflow_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlflow")
    write_run(tmp_path / "run", "mlflow")
    run = json.loads((tmp_path / "run" / "trackers.json").read_text())["mlflow"]
    history = mlflow.MlflowClient().get_metric_history(run, "train/loss")
    assert [(m.step, m.value) for m in history] == [(1, 9), (2, 8), (3, 7), (3, 17), (4, 16), (4, 30)]


@pytest.mark.peers
def test_trackio_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    write_run(tmp_path / "run", "trackio")
    name = json.loads((tmp_path / "run" / "trackers.json").read_text())["trackio"]
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    assert storage.get_runs("jaxtrain") == [name]
    points = [
        (log["step"], log["train/loss"]) for log in storage.get_logs("jaxtrain", name) if "train/loss" in log
    ]
    assert sorted(points) == [(1, 9), (2, 8), (3, 7), (3, 17), (4, 16), (4, 30)]
