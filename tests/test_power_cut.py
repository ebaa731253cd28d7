"""What a stage writes is on disk before it has its name, and its folder behind that: strace tells."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import CONFIGS, runs, tiny, workplace

__all__ = ["tiny"]
ROOT = Path(__file__).parents[1]
ARTIFACTS = sorted(path.stem for path in CONFIGS.glob("[0-9]*.py"))
QUICK = ("3_tokenize", "10_report")
STRACE = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-s", "4096", "-e", "trace=fsync,fdatasync,/^rename"]
CALL = re.compile(r"(\d+) +(\w+)\((.*?)\) += (\d+)$")
FIRST = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
REST = re.compile(r"(\d+) +<\.\.\. \w+ resumed>\) += (\d+)$")


def traced(folder: Path, *arguments: str) -> list[tuple[str, ...]]:
    """("fsync", path) and ("rename", from, to) of `jaxtrain ARGUMENTS` in the folder, in their order."""
    log = folder / "calls"
    command = [*STRACE, "-o", str(log), sys.executable, "-m", "jaxtrain", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    calls, begun = [], dict[str, tuple[str, str]]()
    for line in log.read_text().splitlines():
        if found := FIRST.match(line):
            begun[found[1]] = (found[2], found[3])
        elif found := REST.match(line):
            calls.append(_call(folder, *begun.pop(found[1])))
        elif found := CALL.match(line):
            calls.append(_call(folder, found[2], found[3]))
    return calls


def _call(folder: Path, name: str, arguments: str) -> tuple[str, ...]:
    if "sync" in name:
        found = re.search(r"<(.*)>", arguments)
        assert found is not None
        return "fsync", found[1]
    return "rename", *(os.path.join(folder, path) for path in re.findall(r'"(.*?)"', arguments))  # noqa: PTH118


def unsafe(calls: list[tuple[str, ...]], out: Path) -> list[str]:
    """What had its name before it was on disk, and names that no folder kept."""
    problems, synced, partial = list[str](), set[str](), f"{out}.partial"
    for at, (call, source, *target) in enumerate(calls):
        if call == "fsync":
            synced.add(source)
            continue
        name = Path(target[0])
        if name == out:
            of = [f"{partial}/{path.relative_to(out)}" for path in out.rglob("*")]
            problems += [f"{path} at the rename to {name}" for path in (partial, *of) if path not in synced]
        elif str(name.parent) in (partial, str(out)) and source not in synced:
            problems.append(f"{source} at the rename to {name}")
        # what lies deeper is flushed as a whole, before all of it has its name
        if source in synced:
            synced.add(str(name))
        if name.parent in (out, out.parent, Path(partial)) and ("fsync", str(name.parent)) not in calls[at:]:
            problems.append(f"{name.parent} behind the rename to {name}")
    return problems


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in ARTIFACTS]
)
def test_all_of_an_artifact_is_on_disk_before_it_has_its_name(tiny: Path, tmp_path: Path, name: str) -> None:
    folder = workplace(tmp_path / "place")
    runs(folder).parent.mkdir(parents=True)
    runs(folder).symlink_to(runs(tiny))
    out = folder / name
    stage = name.split("_", 1)[1]
    stage = {"reward": "align", "ppo": "align"}.get(stage, stage)
    calls = traced(folder, stage, str(CONFIGS / f"{name}.py"), "--out", name)
    assert any(call[0] == "rename" and call[2] == str(out) for call in calls)
    assert unsafe(calls, out) == []
