"""A stage's output folder. A folder without a manifest does not exist.

`produce` writes into `<out>.partial`, writes `manifest.json` last and renames, so that a stage killed
at any moment leaves either its whole artifact or none. The manifest is free of times, and of the paths of
its inputs: the same inputs, config and source give the same bytes. What a stage cost is in `cost.json`.
"""

import ast
import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jaxtrain
from jaxtrain import config as configs
from jaxtrain.runtime.energy import Meter
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say

MANIFEST, COST, STARTED, LOCK = "manifest.json", "cost.json", "started.json", "lock"
PACKAGE = Path(jaxtrain.__file__).parent
INSTALLED = {"__pycache__", "site-packages", "dist-packages"}  # beside an input's own files, not of it
WHERE = {"out", "engine", "workers", "mesh", "safety", "profile", "trackers"}
"""Fields of where and how the work is done: the result is the same (on another mesh up to rounding), and what
was begun there goes on here."""
Counts = dict[str, Any]


@dataclass(frozen=True)
class Others:
    """Processes that make an artifact together; alone by default."""

    is_first: bool = True
    wait: Callable[[str], None] = lambda moment: None
    """Until all of them are at the moment that is named."""


def produce(
    config: Any,
    inputs: Mapping[str, str | Path],
    write: Callable[[Path], Counts],
    resume: bool = False,
    fingerprints: Mapping[str, str] | None = None,
    others: Others | None = None,
) -> Path:
    """The finished artifact of `config`: the one that stands, if its fingerprint matches, or a new one.

    config: has a field `out`, the folder to write.
    inputs: name to path of each artifact, file or folder that the stage reads.
    write: fills the folder it is given and returns counts for the manifest.
    resume: keep what a killed run of the same fingerprint left in `<out>.partial`.
    fingerprints: of inputs that are neither file nor folder, such as a database, by name.
    others: where several processes call this together; the first of them alone touches the folder.
    """
    others = others or Others()
    out, partial = Path(config.out), Path(f"{config.out}.partial")
    for name, path in inputs.items():
        if not Path(path).exists():
            raise UserError(f"input {name}: {path} does not exist; {_remedy(path)}")
    described = describe(config, inputs, fingerprints)
    stands = read_manifest(out)
    if stands is not None:
        if stands["fingerprint"] == described["fingerprint"] and is_whole(out, stands):
            _remove(Path(f"{out}.old"))  # a kill in the last moment leaves it, or the lock
            (out / LOCK).unlink(missing_ok=True)
            say(f"{described['stage']}: reused {out}")
            return out
        say(f"{described['stage']}: {out} is out of date ({_difference(stands, described)}); making it again")
    if not others.is_first:
        others.wait("artifact begun")
        write(partial)
        others.wait("artifact finished")
        return out
    with _alone(partial):
        again = _read_json(partial / STARTED) == described
        before = _cost_before(partial) if again else {"seconds": 0.0}
        if not (resume and again):
            _empty(partial)
        begun = time.monotonic()
        _write_json(partial / COST, before)
        _write_json(partial / STARTED, described)
        others.wait("artifact begun")
        with Meter() as meter:
            counts = write(partial)
        _write_json(partial / MANIFEST, {**described, "counts": counts, "files": _list_files(partial)})
        _write_json(partial / COST, _cost(before, time.monotonic() - begun, meter.kilowatt_hours))
        (partial / STARTED).unlink()
        _rename(partial, out)
        (out / LOCK).unlink()  # not before: a second run would empty the folder
    others.wait("artifact finished")
    return out


@contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """No other process works in the folder meanwhile. The lock ends with this process, however it ends."""
    partial.mkdir(parents=True, exist_ok=True)
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


def _cost(before: dict[str, Any], seconds: float, measured: dict[str, float]) -> dict[str, Any]:
    """Seconds of all runs on this folder; energy of the last alone, where counters measured it."""
    cost: dict[str, Any] = {**before, "seconds": round(before["seconds"] + seconds, 2)}
    if measured:
        cost["measured"] = {"seconds": round(seconds, 2), "kilowatt_hours": measured}
    return cost


def describe(
    config: Any, inputs: Mapping[str, str | Path], fingerprints: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the artifact is made of, and the fingerprint of that."""
    resolved = configs.to_json(config)
    named = {str(path): f"<input {name}>" for name, path in inputs.items()}
    described = {
        "stage": configs.stage_of(config),
        "config": {key: _name_paths(value, named) for key, value in resolved.items() if key not in WHERE},
        "inputs": {name: input_fingerprint(path) for name, path in inputs.items()} | dict(fingerprints or {}),
        "source": source_hash(type(config).__module__),
        "version": jaxtrain.__version__,
    }
    return {"fingerprint": _sha256(json.dumps(described, sort_keys=True).encode()), **described}


def _name_paths(value: Any, named: dict[str, str]) -> Any:
    """An input counts by its contents, not by where it lies."""
    match value:
        case str():
            return named.get(value, value)
        case list():
            return [_name_paths(item, named) for item in value]
        case dict():
            return {key: _name_paths(item, named) for key, item in value.items()}
    return value


def read_manifest(folder: str | Path) -> dict[str, Any] | None:
    """The manifest of a finished artifact, or None."""
    return _read_json(Path(folder) / MANIFEST)


def require(folder: str | Path, stage: str) -> dict[str, Any]:
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
    return (
        f"write it first with `jaxtrain {stage} CONFIG`, or run the whole recipe with `jaxtrain run FOLDER`"
    )


def is_whole(folder: Path, manifest: dict[str, Any]) -> bool:
    """Every file of the manifest is there at its size."""
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == entry["size"]
        for name, entry in manifest["files"].items()
    )


def input_fingerprint(path: str | Path) -> str:
    """Of an artifact its own; of any other file or folder the hash of its contents."""
    path = Path(path)
    if manifest := read_manifest(path):
        return manifest["fingerprint"]
    if not path.exists():
        raise UserError(f"no such input: {path}")
    files = (
        [path]
        if path.is_file()
        else sorted(
            p for p in path.rglob("*") if p.is_file() and INSTALLED.isdisjoint(p.relative_to(path).parts)
        )
    )
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path).as_posix()}\0{_file_sha256(file)}\n".encode())
    return digest.hexdigest()


@cache
def source_hash(module: str) -> str:
    """Hash of a module and of all of jaxtrain that it imports, without comments, docstrings and layout."""
    trees: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = None if name in trees else _source_file(name)
        if file is None:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        waiting += _imported(tree)
        trees[name] = ast.dump(_WithoutStrings().visit(tree))
        trees |= {f"{name} {page.name}": _file_sha256(page) for page in file.parent.glob("*.html")}
    return _sha256(json.dumps(sorted(trees.items())).encode())


class _WithoutStrings(ast.NodeTransformer):
    """Drops docstrings: a string that is a statement does nothing."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


def _source_file(module: str) -> Path | None:
    """Where a module of jaxtrain lies; None for any other, and for a name that is no module."""
    if module.split(".")[0] != "jaxtrain":
        return None
    base = PACKAGE.joinpath(*module.split(".")[1:])
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


def _imported(tree: ast.AST) -> Iterator[str]:
    """Every module that a file may import: of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _cost_before(partial: Path) -> dict[str, Any]:
    """What killed runs spent on this folder, from their start to the last file that they wrote; how many."""
    last = max(path.stat().st_mtime for path in partial.rglob("*") if path.is_file())
    before = _read_json(partial / COST) or {"seconds": 0.0}
    seconds = round(before["seconds"] + last - (partial / STARTED).stat().st_mtime, 2)
    return {"seconds": seconds, "restarts": before.get("restarts", 0) + 1}


def _list_files(partial: Path) -> dict[str, dict[str, Any]]:
    own = {partial / f"{name}{end}" for name in (MANIFEST, COST, STARTED, LOCK) for end in ("", ".tmp")}
    return {
        path.relative_to(partial).as_posix(): {"size": path.stat().st_size, "sha256": _file_sha256(path)}
        for path in sorted(partial.rglob("*"))
        if path.is_file() and path not in own
    }


def _rename(partial: Path, out: Path) -> None:
    old = Path(f"{out}.old")
    _remove(old)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    _remove(old)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _difference(stands: dict[str, Any], described: dict[str, Any]) -> str:
    changed = [
        f"config.{key}"
        for key in described["config"]
        if stands["config"].get(key, "absent") != described["config"][key]
    ]
    changed += [
        f"input {key}" for key in described["inputs"] if stands["inputs"].get(key) != described["inputs"][key]
    ]
    changed += [key for key in ("source", "version") if stands.get(key) != described[key]]
    return "changed: " + ", ".join(changed) if changed else "a file is missing or cut short"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")
    temporary.replace(path)
