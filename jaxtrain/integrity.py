"""Files of artifacts that are what they were when they were written, or are refused by name.

A manifest lists the sha256 of every file, and its own. Whoever opens an artifact compares what it opens:
shards of records and checkpoints when each is first read, everything else at once.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.files import finite, flush, sha256, write_whole

MANIFEST, COST, STARTED, LOCK = "manifest.json", "cost.json", "started.json", "lock"
OWN = {f"{name}{end}" for name in (MANIFEST, COST, STARTED, LOCK) for end in ("", ".tmp")}
SUM = "sha256"
"""The key under which a file of JSON has the hash of the rest of it."""
Files = dict[str, dict[str, Any]]


class Damaged(UserError):
    """A file is not what was written."""


@dataclass(frozen=True)
class Problem:
    """How a file of an artifact differs from its manifest."""

    name: str
    what: str

    @property
    def is_extra(self) -> bool:
        """Whether the file is whole, but of somebody else."""
        return self.what == EXTRA

    def __str__(self) -> str:
        return f"{self.name} {self.what}"


CHANGED = "was changed since it was written"
MISSING = "is missing"
EXTRA = "is not in its manifest"
AGAIN = "make it again: `jaxtrain {} CONFIG`, or `jaxtrain run FOLDER`"


def problems(folder: Path, files: Files, lazy: bool = False) -> list[Problem]:
    """Every file of an artifact that is not as its manifest lists it.

    lazy: what is compared when it is first read is not compared now. A manifest that lists no file at all
    says nothing of them.
    """
    if not files:
        return []
    hidden = {name for name in _names(folder) if Path(name).name.startswith(".")}  # of a desktop, say
    found = [Problem(name, EXTRA) for name in _names(folder) if name not in files and name not in hidden]
    whole = []
    for name, entry in files.items():
        if not (folder / name).is_file():
            found.append(Problem(name, MISSING))
        elif (folder / name).stat().st_size != entry["size"]:
            found.append(Problem(name, CHANGED))
        elif not (lazy and is_read_later(name)):
            whole.append(name)
    with ThreadPoolExecutor(os.cpu_count()) as hashers:
        digests = hashers.map(lambda name: digest(folder / name), whole)
        differ = [name for name, own in zip(whole, digests, strict=True) if own != files[name]["sha256"]]
    return found + [Problem(name, CHANGED) for name in differ]


def is_read_later(name: str) -> bool:
    """Whether it is a shard of records or of a checkpoint, whose list of checksums is compared at once."""
    is_checkpoint = name.startswith("checkpoint/") and not name.endswith("/checksums.txt")
    return is_checkpoint or name.endswith(".arrayrecord")


def check(folder: str | Path) -> None:
    """Compare an artifact with its manifest; of a folder that is none, nothing is known.

    Errors: Damaged, which names the file and the remedy.
    """
    made = read_json(Path(folder) / MANIFEST)
    found = problems(Path(folder), made["files"], lazy=True) if made and "files" in made else []
    if found:
        raise Damaged(refusal(Path(folder), found[0], made["stage"]))


def check_file(path: str | Path) -> None:
    """Compare one file with the manifest of the artifact that it lies in, if it lies in one.

    Errors: Damaged, which names the file and the remedy.
    """
    path = Path(path)
    folder = next((above for above in path.absolute().parents if (above / MANIFEST).is_file()), None)
    if folder is not None:
        made = _manifest(folder, (folder / MANIFEST).stat().st_mtime_ns)
        name = path.absolute().relative_to(folder).as_posix()
        entry = made.get("files", {}).get(name)
        if entry is not None and digest(path) != entry["sha256"]:
            raise Damaged(refusal(folder, Problem(name, CHANGED), made["stage"]))


@cache
def _manifest(folder: Path, modified: int) -> dict[str, Any]:
    return read_json(folder / MANIFEST) or {}


def refusal(folder: Path, found: Problem, stage: str) -> str:
    """Why the artifact is not read, and the remedy."""
    if found.is_extra:
        return f"{folder}/{found}; move it elsewhere"
    return f"{folder}/{found}; {AGAIN.format(stage)}"


def list_files(folder: Path) -> Files:
    """Size and sha256 of every file but the artifact's own papers; all of them are on disk then."""
    names = _names(folder)
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        flush(place)

    def entry(name: str) -> dict[str, Any]:
        flush(folder / name)
        return {"size": (folder / name).stat().st_size, "sha256": digest(folder / name)}

    with ThreadPoolExecutor(os.cpu_count()) as hashers:
        return dict(zip(names, hashers.map(entry, names), strict=True))


def _names(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name not in OWN)


def digest(path: Path) -> str:
    """sha256 of a file; read once, as long as nobody writes it."""
    now = path.stat()
    return _digest(path.absolute(), now.st_ino, now.st_size, now.st_mtime_ns)


@cache
def _digest(path: Path, inode: int, size: int, modified: int) -> str:
    return sha256(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote, without its hash; None where there is no file.

    Errors: Damaged where it is not what was written. What has no hash was written by older code.
    """
    if not path.is_file():
        return None
    text = path.read_bytes()
    try:
        value = json.loads(text)
        own = value.pop(SUM, None)
    except (ValueError, AttributeError, TypeError) as error:
        raise Damaged(f"{path} was cut or changed; {AGAIN.format('STAGE')}") from error
    if own is not None and text != _sealed(value):
        raise Damaged(f"{path} {CHANGED}; {AGAIN.format('STAGE')}")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """One object, and the hash of it, in place of what stands there."""
    write_whole(path, _sealed(value).decode())


def _sealed(value: dict[str, Any]) -> bytes:
    return _text({**value, SUM: hashlib.sha256(_text(value)).hexdigest()})


def _text(value: dict[str, Any]) -> bytes:
    return (json.dumps(finite(value), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
