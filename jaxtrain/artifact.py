"""A stage's output folder. A folder without a manifest does not exist.

`produce` writes into `<out>.partial`, writes `manifest.json` last and renames, so that a stage killed
at any moment leaves either its whole artifact or none. The manifest is free of times and paths of the
machine: the same inputs, config and source give the same bytes. What a stage cost is in `cost.json`.
"""

import ast
import hashlib
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jaxtrain
from jaxtrain import config as configs
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say

MANIFEST, COST, STARTED = "manifest.json", "cost.json", "started.json"
INSTALLED = {"__pycache__", "site-packages", "dist-packages"}  # beside an input's own files, not of it
Counts = dict[str, Any]


def produce(config: Any, inputs: Mapping[str, str | Path], write: Callable[[Path], Counts],
            resume: bool = False) -> Path:
    """The finished artifact of `config`: the one that stands, if its fingerprint matches, or a new one.

    config: has a field `out`, the folder to write.
    inputs: name to path of each artifact, file or folder that the stage reads.
    write: fills the folder it is given and returns counts for the manifest.
    resume: keep what a killed run of the same fingerprint left in `<out>.partial`.
    """
    out, partial = Path(config.out), Path(f"{config.out}.partial")
    described = describe(config, inputs)
    stands = read_manifest(out)
    if stands is not None:
        if stands["fingerprint"] == described["fingerprint"] and is_whole(out, stands):
            say(f"{described['stage']}: reused {out}")
            return out
        say(f"{described['stage']}: {out} is out of date ({_difference(stands, described)}); making it again")
    if partial.exists() and not (resume and _read_json(partial / STARTED) == described):
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    _write_json(partial / STARTED, described)
    begun = time.time()
    counts = write(partial)
    _finish(partial, out, described, counts, time.time() - begun)
    return out


def describe(config: Any, inputs: Mapping[str, str | Path]) -> dict[str, Any]:
    """What the artifact is made of, and the fingerprint of that."""
    resolved = configs.to_json(config)
    described = {
        "stage": configs.stage_of(config),
        "config": {key: value for key, value in resolved.items() if key != "out"},
        "inputs": {name: input_fingerprint(path) for name, path in inputs.items()},
        "source": source_hash(type(config).__module__),
        "version": jaxtrain.__version__,
    }
    return {"fingerprint": _sha256(json.dumps(described, sort_keys=True).encode()), **described}


def read_manifest(folder: str | Path) -> dict[str, Any] | None:
    """The manifest of a finished artifact, or None."""
    return _read_json(Path(folder) / MANIFEST)


def require(folder: str | Path, stage: str) -> dict[str, Any]:
    """The manifest of an input that must stand and come from `stage`."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"no finished {stage} artifact at {folder}; run `jaxtrain {stage}` with out = {str(folder)!r} first")
    if manifest["stage"] != stage:
        raise UserError(f"{folder} was written by {manifest['stage']}, but a {stage} artifact is needed here")
    return manifest


def is_whole(folder: Path, manifest: dict[str, Any]) -> bool:
    """Every file of the manifest is there at its size."""
    return all((folder / name).is_file() and (folder / name).stat().st_size == entry["size"]
               for name, entry in manifest["files"].items())


def input_fingerprint(path: str | Path) -> str:
    """Of an artifact its own; of any other file or folder the hash of its contents."""
    path = Path(path)
    if manifest := read_manifest(path):
        return manifest["fingerprint"]
    if not path.exists():
        raise UserError(f"no such input: {path}")
    files = [path] if path.is_file() else sorted(
        p for p in path.rglob("*") if p.is_file() and INSTALLED.isdisjoint(p.relative_to(path).parts))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path).as_posix()}\0{_sha256(file.read_bytes())}\n".encode())
    return digest.hexdigest()


@cache
def source_hash(module: str) -> str:
    """Hash of the syntax trees of a module and of all of jaxtrain that it imports, comments aside."""
    trees: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        spec = importlib.util.find_spec(name) if name.split(".")[0] == "jaxtrain" and name not in trees else None
        if spec is None or spec.origin is None:
            continue
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        trees[name] = ast.dump(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "jaxtrain":
                folder = Path(importlib.util.find_spec(node.module).origin)
                waiting.append(node.module)
                if folder.name == "__init__.py":  # `from jaxtrain.runtime import mesh` names a module
                    waiting += [f"{node.module}.{a.name}" for a in node.names
                                if (folder.parent / f"{a.name}.py").is_file() or (folder.parent / a.name).is_dir()]
    return _sha256(json.dumps(sorted(trees.items())).encode())


def _finish(partial: Path, out: Path, described: dict[str, Any], counts: Counts, seconds: float) -> None:
    (partial / STARTED).unlink()
    files = sorted(p for p in partial.rglob("*") if p.is_file() and p.name not in (MANIFEST, COST))
    entries = {p.relative_to(partial).as_posix(): {"size": p.stat().st_size, "sha256": _sha256(p.read_bytes())}
               for p in files}
    earlier = _read_json(partial / COST) or {"seconds": 0.0}
    _write_json(partial / COST, {**earlier, "seconds": round(earlier["seconds"] + seconds, 2)})
    _write_json(partial / MANIFEST, {**described, "counts": counts, "files": entries})
    old = Path(f"{out}.old")
    if old.exists():
        shutil.rmtree(old)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    if old.exists():
        shutil.rmtree(old)


def _difference(stands: dict[str, Any], described: dict[str, Any]) -> str:
    changed = [f"config.{key}" for key in described["config"]
               if stands["config"].get(key, "absent") != described["config"][key]]
    changed += [f"input {key}" for key in described["inputs"]
                if stands["inputs"].get(key) != described["inputs"][key]]
    changed += [key for key in ("source", "version") if stands.get(key) != described[key]]
    return "changed: " + ", ".join(changed) if changed else "a file is missing or cut short"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    os.replace(temporary, path)
