"""What an artifact is made of: its config, its inputs, and the VERSION of its stage.

Code is no part of that. A stage's config class states `VERSION`, a number that is raised when the stage gives
another result for the same config and inputs. Operational fields of the config do not count (fields.py).
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jaxtrain
from jaxtrain import config as configs
from jaxtrain import fields
from jaxtrain.integrity import AGAIN, MANIFEST, Damaged, digest, read_json
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say

INSTALLED = {"__pycache__", "site-packages", "dist-packages"}  # beside an input's own files, not of it
NAMED = 3  # differences that a message names
SHORT = 40  # characters of a value in a message
Manifest = dict[str, Any]
Inputs = Mapping[str, str | Path]
Place = tuple[str | int, ...]
"""Names of fields, keys of mappings and places in lists that lead to a value of a config."""


def describe(config: Any, inputs: Inputs, fingerprints: Mapping[str, str] | None = None) -> Manifest:
    """What the artifact of `config` is made of, and the fingerprint of that.

    inputs: name to path of each artifact, file or folder that the stage reads.
    fingerprints: of inputs that are neither file nor folder, by name.
    """
    resolved = configs.to_json(config)
    del resolved["out"]
    described = {
        "stage": configs.stage_of(config),
        "version": type(config).VERSION,
        "config": _name_paths(resolved, {str(path): f"<input {name}>" for name, path in inputs.items()}),
        "inputs": {name: input_fingerprint(path) for name, path in inputs.items()} | dict(fingerprints or {}),
    }
    return {
        **described,
        "fingerprint": fingerprint(described),
        "artifacts": [name for name, path in inputs.items() if (Path(path) / MANIFEST).is_file()],
        "jaxtrain": jaxtrain.__version__,
    }


def fingerprint(described: Manifest) -> str:
    """sha256 of what an artifact is made of, and of what changed on the way."""
    parts = {name: described[name] for name in ("stage", "version", "config", "inputs")}
    if described.get("changed"):
        parts["changed"] = described["changed"]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _name_paths(value: Any, named: Mapping[str, str]) -> Any:
    """An input counts by its contents, not by where it lies."""
    match value:
        case str():
            return named.get(value, value)
        case list():
            return [_name_paths(item, named) for item in value]
        case dict():
            return {key: _name_paths(item, named) for key, item in value.items()}
    return value


@dataclass(frozen=True)
class Difference:
    """One way in which what stands is not what is asked for."""

    field: str
    """Dotted, as on the command line; or `input NAME`, or `VERSION`."""
    old: Any
    new: Any
    changeable: bool = False
    """Whether a run that was interrupted goes on with the new value."""

    def __str__(self) -> str:
        if self.field.startswith("input "):
            return f"{self.field} has changed"
        return f"{self.field} {_short(self.old)} → {_short(self.new)}"


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHORT else text[:SHORT] + "…"


def told(differences: list[Difference]) -> str:
    """At most a few of them, in words."""
    more = len(differences) - NAMED
    return ", ".join(map(str, differences[:NAMED])) + (f" and {more} more" if more > 0 else "")


def differences(stands: Manifest, described: Manifest, config: Any) -> list[Difference]:
    """How what stands differs from what is described; empty: it is that.

    A field that the manifest does not have was added since and counts as its default there; one that the
    config no longer has does not count. Of an artifact of older code, fields and inputs that both have count.
    """
    older, found = is_older(stands), []
    if not older and stands["version"] != described["version"]:
        found.append(Difference("VERSION", stands["version"], described["version"]))
    before = flat(stands.get("config", {}))
    for path, value in flat(described["config"]).items():
        is_default, changeable = _marks(config, path)
        added = value if older or is_default else None
        # what is in `train` was at the top of older configs, which had a class of their own there
        former = path[1:] if path[0] == "train" and path[1:] != ("class",) else path
        old = before.get(path, before.get(former, added))
        if old != value:
            found.append(Difference(".".join(map(str, path)), old, value, changeable))
    old, new = stands.get("inputs", {}), described["inputs"]
    names = [name for name in new if name in old] if older else dict.fromkeys([*new, *old])
    found += [Difference(f"input {name}", None, None) for name in names if old.get(name) != new.get(name)]
    return found


def flat(value: Any, path: Place = ()) -> dict[Place, Any]:
    """JSON of a config by its fields; a mapping counts by its keys too, a list of configs by its length."""
    match value:
        case dict():
            own = {} if isinstance(value.get("class"), str) else {path: sorted(value)}
            parts = value.items()
        case [{}, *_]:
            own, parts = {path: len(value)}, enumerate(value)
        case _:
            return {path: value}
    return own | {k: v for key, part in parts for k, v in flat(part, (*path, key)).items()}


def _marks(config: Any, path: Place) -> tuple[bool, bool]:
    """Whether a field on the way to a value has its default, and whether one is adjustable."""
    is_default = is_adjustable = False
    for key in path:
        if not dataclasses.is_dataclass(config):
            config = config[key]
        elif key != "class":
            (field,) = (field for field in dataclasses.fields(config) if field.name == key)
            is_adjustable |= fields.changes(type(config)).get(key) is fields.Change.ADJUSTABLE
            config = getattr(config, key)
            is_default |= config == fields.default_of(field)
    return is_default, is_adjustable


def read(folder: str | Path) -> Manifest | None:
    """The manifest of a finished artifact, or None; UserError where it was cut or changed."""
    manifest = read_json(Path(folder) / MANIFEST)
    if manifest is None:
        return None
    if "stage" not in manifest:
        raise Damaged(f"{folder}/{MANIFEST} was cut or changed; {AGAIN.format('STAGE')}")
    if is_older(manifest):
        warn_of_older()
    return manifest


def guess(folder: Path) -> Manifest | None:
    """What a manifest that was changed still says, or None where that is not all."""
    try:
        made = json.loads((folder / MANIFEST).read_bytes())
        described = {"stage": str, "version": int, "config": dict, "inputs": dict, "files": dict}
        return made if all(isinstance(made[name], kind) for name, kind in described.items()) else None
    except (ValueError, KeyError, TypeError):
        return None


def is_older(described: Manifest) -> bool:
    """Whether it is of code that wrote a hash of its source in place of a stage's VERSION."""
    return not isinstance(described.get("version"), int)


@cache
def warn_of_older() -> None:
    """Once, however many there are."""
    say("some artifacts are of an older jaxtrain: they are read as they stand")


def input_fingerprint(path: str | Path) -> str:
    """Of an artifact its own; of any other file or folder the hash of its contents."""
    path = Path(path)
    if manifest := read(path):
        return manifest["fingerprint"]
    if not path.exists():
        raise UserError(f"no such input: {path}")
    files = [path]
    if path.is_dir():
        below = (file for file in path.rglob("*") if INSTALLED.isdisjoint(file.relative_to(path).parts))
        files = sorted(file for file in below if file.is_file())
    found = hashlib.sha256()
    for file in files:
        name = os.fsencode(file.relative_to(path).as_posix())
        found.update(name + f"\0{digest(file)}\n".encode())
    return found.hexdigest()
