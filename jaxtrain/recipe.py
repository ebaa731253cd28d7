"""The recipes that come along, and `jaxtrain init`, which makes one of them your own.

`shipped` leads to the repository's `configs` and `data`; a wheel carries what lies there.
"""

import ast
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jaxtrain.config import scales
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say

SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Copies a recipe that comes along to a folder of your own, and the data that it reads to `data`.
    Its artifacts go to runs/NAME, whatever the folder's name is: it may be copied and renamed."""

    name: str
    """Folder to write."""
    from_: str = "quickstart"
    """The recipe to begin with; tiny is the quickstart in little."""


def init(config: InitConfig) -> None:
    """Write the recipe; UserError where there is no such one, or something is in its place."""
    known = sorted(path.name for path in (SHIPPED / "configs").iterdir() if path.is_dir())
    if config.from_ not in known:
        raise UserError(f"--from {config.from_}: no such recipe comes along; there are {', '.join(known)}")
    source, out = SHIPPED / "configs" / config.from_, Path(config.name)
    runs = [f"{out.resolve().name}-{scale}" for scale in scales(source)] or [out.resolve().name]
    for place in (out, *(Path("runs") / name for name in runs)):
        if place.exists():
            raise UserError(f"{place} exists; choose another name")
    out.mkdir(parents=True)
    needed: set[str] = set()
    for file in sorted(path for path in source.iterdir() if path.is_file()):
        text = file.read_text(encoding="utf-8")
        needed |= set(re.findall(r"\bdata/(\w+)\b", text))
        for folder, own in (("configs", config.name), ("runs", f"runs/{out.name}")):
            text = text.replace(f"{folder}/{config.from_}", own)
        (out / file.name).write_text(text, encoding="utf-8")
    for name in sorted(needed & {path.name for path in (SHIPPED / "data").iterdir()}):
        if not (Path("data") / name).exists():
            shutil.copytree(SHIPPED / "data" / name, Path("data") / name)
            say(f"data/{name} written")
    say(f"{out} written: `jaxtrain run {out}` runs it, into runs/{runs[0]}")


@cache
def fields_used() -> Mapping[str, set[str]]:
    """The fields that recipes set, by the name of their class."""
    used: defaultdict[str, set[str]] = defaultdict(set)
    for file in (SHIPPED / "configs").glob("*/*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                used[node.func.id] |= {word.arg for word in node.keywords if word.arg}
    return used
