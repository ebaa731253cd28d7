"""What there is to learn from one NVIDIA GPU, in sittings whose parts are skipped once their result is there.

make gpu SITTING=A PYTHON=python3      kernels against references, the 124M step beside torch.compile
make gpu SITTING=B PYTHON=python3      350M and 1B, longer rows, packed ones, decoding
make gpu SITTING=C PYTHON=python3      five minutes of training, a minute of PyTorch's
python benchmarks/gpu.py --dry         what this host lacks
python benchmarks/gpu.py A B C --tiny  every part with small shapes, on a CPU too: whether it runs to its end

A is meant to take 4 minutes, B and C 8. A part writes PART.json and PART.log in benchmarks/results/gpu (of
small shapes gpu-tiny, which git ignores). `--torch PYTHON` names a Python with torch for the peer; this one
where it has it.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ["tests/model/test_on_gpu.py", "tests/runtime/test_energy.py"]
STEP = ["benchmarks/train_step.py", "--bf16"]
FIVE = ["benchmarks/five_minutes.py", "--seeds", "1", "--rates", "1"]
LONG = {"1k": ("1024", "64"), "2k": ("2048", "32"), "8k": ("8192", "8")}
PARTS: dict[str, dict[str, list[str]]] = {
    "A": {
        "kernels": ["-m", "pytest", "-m", "gpu", "-n", "0", "-p", "no:cacheprovider", *TESTS],
        "124m": [*STEP, "--preset", "124m", "--torch", "TORCH", "--rounds", "4"],
        "124m_packed": [*STEP, "--preset", "124m", "--packed", "--rounds", "4"],
    },
    "B": {
        "1b": [*STEP, "--preset", "1b", "--torch", "TORCH", "--rounds", "3"],
        "1b_float8": [*STEP, "--preset", "1b", "--float8", "--rounds", "3"],
        "1b_packed": [*STEP, "--preset", "1b", "--packed", "--rounds", "3"],
        "350m": [*STEP, "--preset", "350m", "--torch", "TORCH", "--rounds", "3"],
        **{
            f"124m_{name}": [*STEP, "--preset", "124m", "--packed", "--length", length, "--batch", batch]
            for name, (length, batch) in LONG.items()
        },
        "decode": ["benchmarks/decode.py", "--peer", "TORCH", "--rows", "1", "8", "32", "128"],
    },
    "C": {"five_minutes": [*FIVE, "--scale", "shipped", "--torch", "TORCH", "--torch-seconds", "60"]},
}
TINY = {
    "preset": "cpu",
    "layers": 2,
    "width": 96,
    "hidden": 128,
    "length": 128,
    "batch": 2,
    "rounds": 1,
    "steps": 1,
}


def lacking() -> list[str]:
    """Packages that jaxtrain needs and this Python has not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[\[<>=!~; ]", one)[0] for one in project["dependencies"]]
    found = []
    for name in [*names, "pytest", "pytest-xdist", "hypothesis"]:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(name)
    return found


def smaller(command: list[str]) -> list[str]:
    """The part with small shapes."""
    if command[0] == "benchmarks/train_step.py":
        kept = [word for word in command if word in ("--packed", "--float8", "--torch", "TORCH")]
        return [*STEP, *kept, *(f"--{name}={value}" for name, value in TINY.items())]
    if command[0] == "benchmarks/decode.py":
        return [*command[: command.index("--rows")], "--rows", "1", "--shapes", "quickstart", "--rounds", "1"]
    if command[0] == "benchmarks/five_minutes.py":
        return [*FIVE, "--seconds", "5", "--torch", "TORCH"]
    return command


def run(name: str, command: list[str], out: Path, torch: str, tiny: bool) -> str:
    """A part in a process of its own, its result and its log in `out`; says how it went."""
    result, begun = out / f"{name}.json", time.perf_counter()
    if result.exists():
        return "there already"
    command = smaller(command) if tiny else command
    if "TORCH" in command and not torch:
        at = command.index("TORCH")
        command = command[: at - 1] + command[at + 1 :]
    command = [torch if word == "TORCH" else word for word in command]
    if command[0].startswith("benchmarks/"):
        command = [*command, "--name", f"{out.name}/{name}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.6"}
    log = out / f"{name}.log"
    with log.open("w") as file:
        code = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
        ).returncode
    seconds = round(time.perf_counter() - begun, 1)
    if code == 0 and not result.exists():
        result.write_text(json.dumps({"seconds": seconds, "said": log.read_text()[-2000:]}, indent=1) + "\n")
    return f"{'done' if code == 0 else f'status {code}, see {log}'}, {seconds} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sittings", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--torch", default=sys.executable if importlib.util.find_spec("torch") else "")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    if missing := lacking():
        print(f"this Python lacks: {' '.join(missing)}", flush=True)
    if asked.dry:
        return
    if missing:
        raise SystemExit(1)
    out = ROOT / "benchmarks" / "results" / ("gpu-tiny" if asked.tiny else "gpu")
    out.mkdir(exist_ok=True)
    for sitting in asked.sittings:
        for name, command in PARTS[sitting].items():
            print(f"{sitting} {name}: {run(name, command, out, asked.torch, asked.tiny)}", flush=True)


if __name__ == "__main__":
    main()
