"""What the report reads of artifacts: JSON files, whole or a line an object."""

import json
from pathlib import Path
from typing import Any

from jaxtrain.runtime.errors import UserError


def read_json(path: Path) -> Any:
    """The JSON file at `path`; UserError where it is missing or broken."""
    return _parse(path, _read(path))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a `.jsonl` file; a last line without its end (being written) is left out."""
    return [
        _parse(path, line) for line in _read(path).split("\n")[:-1] if line
    ]  # text may hold other line ends


def _read(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is missing; run its stage again")
    return path.read_text(encoding="utf-8")


def _parse(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not readable JSON ({error}); run its stage again") from error
