"""metrics.jsonl of a run as tests compare it."""

import json
from pathlib import Path
from typing import Any


def lines(folder: Path, *kinds: str | None) -> list[dict[str, Any]]:
    """Its lines without times and speed; of some kinds alone where they are given, None: the steps."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in found if line.get("kind") != "speed"]
    found = [line for line in found if not kinds or line.get("kind") in kinds]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]
