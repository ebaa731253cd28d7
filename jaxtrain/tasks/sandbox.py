"""Runs a Python program that nobody has read, and says whether it passes tests: a model wrote it.

Each judgement is a process of its own, shut in by the Linux kernel (`walls.py`): there the tests run in one
process, the program in another (`judge.py`). Of the machine the program sees Python's modules, read-only, and
a small scratch folder; no other process, no network. Where the kernel cannot do that nothing is run:
UserError.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxtrain.runtime.errors import UserError

_START = "import sys; sys.path.append(sys.argv.pop(1)); from jaxtrain.tasks.walls import main; main()"
_PACKAGES = str(Path(__file__).parents[2])
_VERDICT = 1024
"""Most bytes of one."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    passed: bool
    """It ran to its end without an error and passed its tests, within its limits."""
    reason: str
    """Empty, or what was in the way: `time`, `exit`, the name of an exception, the kind of a wrong answer."""


@dataclass(frozen=True)
class Limits:
    """What a program may use, its tests with it."""

    seconds: int = 5
    """Of a processor. How long that takes depends on what else the machine does."""
    asleep: float = 1.0
    """Seconds in which it neither computes nor waits for a processor."""
    memory_mib: int = 512
    """Address space."""
    file_mib: int = 16
    """Of a file, and of the scratch folder."""


def run(
    program: str,
    limits: Limits | None = None,
    *,
    tests: str = "",
    prompt: str = "",
    names: Sequence[str] = (),
) -> Outcome:
    """Run `program`, then `tests`, which call its functions `names` (`interface.names`) and the prompt's.

    Without tests the outcome is the program's own word. Errors: UserError where it cannot be shut in.
    """
    inside = json.dumps(asdict(limits or Limits()))
    command = [sys.executable, "-I", "-S", "-c", _START, _PACKAGES, str(os.getpid()), inside]
    job = {"program": program, "prompt": prompt, "tests": tests, "names": list(names)}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        start_new_session=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            _expect(process.stdout.readline(_VERDICT), b"apart\n")
            _map_user(process.pid)
            process.stdin.write(b"m")
            process.stdin.flush()
            # up to here nothing of the program was there: this alone can say that there are no walls
            _expect(process.stdout.readline(_VERDICT), b"shut in\n")
            process.stdin.write(json.dumps(job).encode("ascii"))
            process.stdin.close()
            verdict = process.stdout.read(_VERDICT).decode(errors="replace")
        finally:
            process.kill()
    if verdict == "passed":
        return Outcome(True, "")
    return Outcome(False, verdict.removeprefix("failed ") or "exit")


def _expect(said: bytes, wanted: bytes) -> None:
    if said != wanted:
        answer = said.decode(errors="replace").strip() or "gives no answer"
        raise UserError(
            f"code that a model wrote runs in Linux namespaces only; this machine {answer}: allow user "
            "namespaces (sysctl kernel.unprivileged_userns_clone=1; where AppArmor is, "
            "kernel.apparmor_restrict_unprivileged_userns=0), or leave the task out"
        )


def _map_user(pid: int) -> None:
    """The user inside is the user outside, and no other exists there."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{os.geteuid()} {os.geteuid()} 1"),
        ("gid_map", f"{os.getegid()} {os.getegid()} 1"),
    ):
        Path(f"/proc/{pid}/{name}").write_text(text)
