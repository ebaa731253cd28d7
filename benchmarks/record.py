"""What a benchmark found, with the machine and the versions it ran on: benchmarks/results/<name>.json."""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def record(name: str, packages: list[str], found: dict[str, Any]) -> None:
    """Write the results and print them."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    machine = {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    versions = {package: version(package) for package in packages}
    content = {"commit": commit.stdout.strip(), "machine": machine, "versions": versions, **found}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(content, indent=2) + "\n"
    (RESULTS / f"{name}.json").write_text(text)
    print(text)


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":")[1].strip() if names else platform.processor()
