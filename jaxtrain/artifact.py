"""A stage's output folder. A folder without a manifest does not exist.

`produce` writes into `<out>.partial`, writes `manifest.json` last and renames, so that a stage killed
at any moment leaves either its whole artifact or none. The manifest is free of times, and of the paths of
its inputs. What a stage cost is in `cost.json`. What was trained is never deleted: it is set aside.
"""

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from jaxtrain import fields, integrity
from jaxtrain import manifest as manifests
from jaxtrain.integrity import COST, LOCK, MANIFEST, STARTED, Damaged, read_json, write_json
from jaxtrain.manifest import Inputs, Manifest, input_fingerprint
from jaxtrain.manifest import read as read_manifest
from jaxtrain.runtime.cluster import Others
from jaxtrain.runtime.energy import Meter
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.files import flush, writing
from jaxtrain.runtime.progress import say

__all__ = ["COST", "LOCK", "MANIFEST", "STARTED", "input_fingerprint", "read_manifest"]  # for other rooms
ASIDE = ".old."
"""Between the name of a folder that was set aside and its number."""
RESULTS = ("counts", "files")
"""What a manifest has beside what `started.json` has."""
Counts = dict[str, Any]
Trained = Callable[[Path], int]
COMMAND: ContextVar[str] = ContextVar("command", default="Python")
"""What runs the stages, for people to run again."""
_restarts: ContextVar[bool] = ContextVar("restarts", default=False)


@contextmanager
def restarting(restarts: bool) -> Iterator[None]:
    """Meanwhile `produce` sets aside what unfinished runs left, and begins anew."""
    token = _restarts.set(restarts)
    try:
        yield
    finally:
        _restarts.reset(token)


def produce(
    config: Any,
    inputs: Inputs,
    write: Callable[[Path], Counts],
    resume: bool = False,
    trained: Trained | None = None,
    fingerprints: Mapping[str, str] | None = None,
    others: Others | None = None,
) -> Path:
    """The finished artifact of `config`: the one that stands, if it is of that, or a new one.

    config: has a field `out`, the folder to write; its class states a VERSION.
    inputs: name to path of each artifact, file or folder that the stage reads.
    write: fills the folder it is given and returns counts for the manifest.
    resume: go on with what a killed run of the same config left in `<out>.partial`.
    trained: of a stage that trains, which also goes on: the step that the training in a folder has come to.
        It is never deleted: a killed run of another config is a UserError, a finished artifact is set aside.
    fingerprints: of inputs that are neither file nor folder, such as a database, by name.
    others: where several processes call this together; the first of them alone writes anything but what
        `write` does, and its counts are the manifest's.
    """
    fields.check(config)
    others = others or Others()
    out, partial = Path(config.out), Path(f"{Path(config.out)}.partial")
    _check_places(out, inputs)
    described = manifests.describe(config, inputs, fingerprints)
    made, differences, problems = _standing(out, described, config)
    is_same = made is not None and not differences
    if is_same and not problems:
        _tidy(out)
        say(f"{described['stage']}: reused {out}")
        return out
    if reason := manifests.told(differences) or ", ".join(map(str, problems[: manifests.NAMED])):
        say(f"{described['stage']}: {out} is out of date ({reason}); making it again")
    for path in inputs.values():
        integrity.check(path)
    others.wait("artifact looked for")  # until then nothing changes
    with writing(partial):
        if others.is_first:
            if trained and made is not None and is_same:
                _reopen(out, partial, made, problems)
            if _restarts.get() and partial.exists():
                with _alone(partial):
                    _set_aside(partial)
            left = _left(partial, described, config, trained)
            with _alone(partial):
                before = {"seconds": 0.0} if left is None else _cost_before(partial)
                if left is None or not (resume or trained):
                    _empty(partial)
                    left = {}
                _make(partial, described | left, before, write, others)
                _rename(partial, out, keeps=trained is not None)
                _tidy(out)
        else:
            others.wait("artifact begun")
            write(partial)
            others.wait("artifact written")
    others.wait("artifact finished")
    return out


def _check_places(out: Path, inputs: Inputs) -> None:
    """UserError where an input is absent, or where `out` cannot be a folder of its own."""
    if out.name in ("", ".."):
        raise UserError(f"out: {str(out)!r} names no folder of its own, such as runs/mine/4_pretrain")
    for place in (out, Path(f"{out}.partial")):
        try:
            is_file = place.exists() and not place.is_dir()
        except OSError as error:
            raise UserError(f"out: {place}: {error.strerror}; name another folder") from error
        if is_file:
            raise UserError(f"out: {place} is a file; name another folder")
    for name, path in inputs.items():
        if not Path(path).exists():
            raise UserError(f"input {name}: {path} does not exist; {_remedy(path)}")
        if out.resolve() in (Path(path).resolve(), *Path(path).resolve().parents):
            raise UserError(f"out: {out} holds the input {name} ({path}); name another folder")


def _standing(
    out: Path, described: Manifest, config: Any
) -> tuple[Manifest | None, list[manifests.Difference], list[integrity.Problem]]:
    """What stands at `out`, how it differs from what is asked for, and which of its files are not as written.

    Errors: UserError where `out` is of another stage, or holds a file of somebody else.
    """
    problems = []
    try:
        made = read_manifest(out)
    except Damaged:
        made, problems = manifests.guess(out), [integrity.Problem(MANIFEST, integrity.CHANGED)]
    if made is None:
        return None, [], problems
    if made["stage"] != described["stage"]:
        raise UserError(f"out: {out} holds a {made['stage']} artifact; name another folder")
    differences = manifests.differences(made, described, config)
    if not differences:
        problems += integrity.problems(out, made.get("files", {}))
        try:
            read_json(out / COST)
        except Damaged:
            problems.append(integrity.Problem(COST, integrity.CHANGED))
    for problem in problems:
        if problem.is_extra:
            raise UserError(integrity.refusal(out, problem, made["stage"]))
    return made, differences, problems


def _reopen(out: Path, partial: Path, made: Manifest, problems: list[integrity.Problem]) -> None:
    """Make a finished artifact unfinished: its stage goes on from the newest checkpoint that is whole."""
    if partial.exists():
        _set_aside(partial)
    write_json(out / STARTED, {name: value for name, value in made.items() if name not in RESULTS})
    for problem in problems:
        damaged = out / problem.name
        is_verified = problem.name.startswith("checkpoint/")  # and set aside when checkpoints are opened
        if not is_verified and problem.name != MANIFEST and damaged.exists():
            damaged.rename(f"{damaged}.corrupt")
    out.rename(partial)


def _make(
    partial: Path,
    described: Manifest,
    before: dict[str, Any],
    write: Callable[[Path], Counts],
    others: Others,
) -> None:
    """Fill the folder; its manifest is written last."""
    begun = time.monotonic()
    write_json(partial / COST, before)
    write_json(partial / STARTED, described)
    others.wait("artifact begun")
    with Meter() as meter:
        counts = write(partial)
    others.wait("artifact written")
    # seconds of all runs on this folder; energy of the last alone, where counters measured it
    spent, measured = time.monotonic() - begun, meter.kilowatt_hours
    cost = {**before, "seconds": round(before["seconds"] + spent, 2), "command": COMMAND.get()}
    cost["date"] = time.strftime("%Y-%m-%d", time.gmtime())
    if measured:
        cost["measured"] = {"seconds": round(spent, 2), "kilowatt_hours": measured}
    write_json(partial / COST, cost)
    made = {**described, "fingerprint": manifests.fingerprint(described)}
    made |= {"counts": counts, "files": integrity.list_files(partial)}
    write_json(partial / MANIFEST, made)


def _left(partial: Path, described: Manifest, config: Any, trained: Trained | None) -> Manifest | None:
    """With what a killed run goes on: `changed`, a list of the fields that have another value from a step on.

    None: nothing is left to go on with.
    Errors: UserError where something was trained that is not of this config.
    """
    step = trained(partial) if trained else 0
    try:
        started, reason = read_json(partial / STARTED), f"{STARTED} is missing"
    except Damaged:
        started, reason = None, f"{STARTED} was cut or changed"
    if started is not None:
        differences = manifests.differences(started, described, config)
        if all(difference.changeable for difference in differences):
            entries = [{"step": step, "field": of.field, "from": of.old, "to": of.new} for of in differences]
            changed = [*started.get("changed", []), *(entries if step else [])]
            return {"changed": changed} if changed else {}
        reason = manifests.told(differences)
    if step:
        raise UserError(
            f"{partial} holds {step} steps of another run ({reason}); give it the same config again, name "
            "another folder with --out, or add --restart, which sets it aside"
        )
    if started is not None:
        say(f"{described['stage']}: {partial} is of another config ({reason}); beginning anew")
    return None


def _set_aside(folder: Path) -> None:
    """Move a folder to where it stays readable."""
    number = 1
    while (aside := Path(f"{folder}{ASIDE}{number}")).exists():
        number += 1
    folder.rename(aside)
    (aside / LOCK).unlink(missing_ok=True)
    say(f"{folder} is kept as {aside}")


def is_aside(folder: Path) -> bool:
    """Whether the folder was set aside, and stands for its stage no longer."""
    name, _, number = folder.name.rpartition(ASIDE)
    return bool(name) and number.isdigit()


@contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """No other process works in the folder meanwhile. The lock ends with this process, however it ends."""
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{partial} cannot be made ({error.strerror}); name another folder: --out") from error
    with (partial / LOCK).open("a") as file:  # not "w": the file's time would be a sign of life
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise UserError(
                f"another run is at work in {partial}; wait for it, stop it, or name another folder: --out"
            ) from error
        except OSError as error:
            say(f"{partial}: no locks on this file system ({error.strerror}); start no second run there")
        yield


def _empty(partial: Path) -> None:
    for path in partial.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def require(folder: str | Path, stage: str) -> Manifest:
    """The manifest of an input that must stand and come from `stage`."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"no finished {stage} artifact at {folder}; {_remedy(folder, stage)}")
    if manifest["stage"] != stage:
        raise UserError(f"{folder} was written by {manifest['stage']}, but a {stage} artifact is needed here")
    return manifest


def _remedy(path: str | Path, stage: str = "STAGE") -> str:
    if Path(f"{path}.partial").exists():
        return "its stage was interrupted: run it again"
    return f"write it first with `jaxtrain {stage} CONFIG`, or run its recipe with `jaxtrain run FOLDER`"


def read_cost(folder: Path) -> dict[str, Any]:
    """What a finished artifact took: `seconds`, its `command`, and more where it was measured."""
    cost = read_json(folder / COST)
    if cost is None:
        raise UserError(f"{folder / COST} is missing; run its stage again")
    return cost


def _cost_before(partial: Path) -> dict[str, Any]:
    """What killed runs spent on this folder, from their start to the last file that they wrote; how many."""
    last = max(path.stat().st_mtime for path in partial.rglob("*") if path.is_file())
    before = read_json(partial / COST) or {"seconds": 0.0}
    seconds = round(before["seconds"] + last - (partial / STARTED).stat().st_mtime, 2)
    return {"seconds": seconds, "restarts": before.get("restarts", 0) + 1}


def _rename(partial: Path, out: Path, keeps: bool) -> None:
    """keeps: what stands at `out` is set aside, not removed."""
    old = Path(f"{out}.old")
    _remove(old)
    if out.exists() and not any(out.iterdir()):
        out.rmdir()
    elif out.exists():
        _set_aside(out) if keeps or not (out / MANIFEST).exists() else out.rename(old)
    partial.rename(out)
    flush(out.parent)
    _remove(old)


def _tidy(out: Path) -> None:
    """Remove what a kill in the last moment leaves."""
    _remove(Path(f"{out}.old"))
    for name in (STARTED, LOCK):  # not before the rename: a second run would empty the folder
        (out / name).unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
