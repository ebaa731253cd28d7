"""Code that a model wrote: no program is paid for what it does not do, and the machine is as it was."""

import gzip
import json
import os
import platform
import select
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cheats import BUSY, CHEATS, TESTS

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import graders, interface, sandbox, syscalls
from jaxtrain.tasks.sandbox import Limits, Outcome
from jaxtrain.tasks.written import humaneval

LIMITS = Limits(seconds=1)
HUMANEVAL = Path(__file__).parents[3] / "shared" / "material" / "benchmarks" / "HumanEval.jsonl.gz"
pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="the sandbox is Linux's")


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    try:
        sandbox.run("")
    except UserError as refused:
        pytest.skip(str(refused))


def problem(prompt: str, tests: str, name: str):
    return humaneval({"prompt": prompt, "test": tests, "entry_point": name})


def state_of_the_machine() -> tuple[str, list[str], set[str]]:
    """Mounts, folders of temporary files, processes of this one."""
    children = {
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/stat")
        if path.read_text().rsplit(")", 1)[1].split()[1] == str(os.getpid())
    }
    return Path("/proc/self/mounts").read_text(), sorted(map(str, Path("/dev/shm").iterdir())), children


def test_no_program_is_paid_for_what_it_does_not_do():
    check = f"def check(candidate):\n{textwrap.indent(TESTS.replace('double', 'candidate'), '    ')}"
    exercise = problem('def double(x):\n    """Twice x."""\n', check, "double")
    ways = {
        "reward": graders.code(TESTS),
        "HumanEval": lambda program: exercise.grade(f"    return 3 * x\n\n{program}")["pass_at_1"],
    }
    assert ways["reward"]("def double(x): return 2 * x") == 1
    assert exercise.grade("    return 2 * x\n") == {"pass_at_1": 1}
    cases = [(way, kind, program) for way in ways for kind in CHEATS for program in CHEATS[kind]]
    # in the function's own body, too
    inside = [textwrap.indent(programs[0], "    ") for programs in CHEATS.values()]
    before = state_of_the_machine()
    with ThreadPoolExecutor(4) as side_by_side:
        grades = list(side_by_side.map(lambda case: ways[case[0]](case[2]), cases))
        grades_inside = list(side_by_side.map(exercise.grade, inside))
        busy = list(
            side_by_side.map(lambda one: sandbox.run(one, LIMITS, tests=TESTS, names=["double"]), BUSY)
        )
    assert len(cases) >= 2 * 60 and len(CHEATS) >= 12
    assert [case for case, grade in zip(cases, grades, strict=True) if grade] == []
    assert grades_inside == [{"pass_at_1": 0}] * len(inside)
    assert not any(outcome.passed for outcome in busy)
    assert state_of_the_machine() == before


HONEST = [
    (
        "def f(x): return x",
        f"for v in {values}:\n    assert f(v) == v and type(f(v)) is type(v)",
    )
    for values in (
        "[None, True, 0, -3, 2.5, float('inf'), '', 'é', '\\ud800', b'\\xff', 10 ** 5000]",
        "[[], [1, [2]], (1, (2,)), {1, 2}, frozenset({3}), {}, {(1, 2): [3], None: {4: 5}}]",
    )
] + [
    ("def f(a, *b, c=0): return [a, b, c]", "assert f(1, 2, 3, c=4) == [1, (2, 3), 4]"),
    ("from collections import Counter\ndef f(x): return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}"),
    ("def f(x):\n    if x < 0: raise ValueError('negative')\n    return x", """
try:
    f(-1)
    assert False
except ValueError as error:
    assert str(error) == 'negative'
assert f(1) == 1"""),
    ("class Odd(KeyError): pass\ndef f(x): raise Odd", """
import contextlib
with contextlib.suppress(LookupError):
    f(1)
    assert False"""),
    ("limit = 3\ndef f(): return limit", "assert f() == limit == 3"),
    ("import time\ndef f(x):\n    time.sleep(0.01)\n    return x", "assert all(f(n) == n for n in range(9))"),
    ("print('hello')\ndef f(x):\n    print(x)\n    return x", "print(f(1))\nassert f(1) == 1"),
    ("total = 0\ndef f(x):\n    global total\n    total += x\n    return total", "f(1)\nassert f(2) == 3"),
    (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x): return P(x).x",
        "def check(candidate):\n    assert candidate(4) == 4\ncheck(f)",
    ),
    ("open('a', 'w').write('hi')\ndef f(): return open('a').read()", "assert f() == 'hi'"),
    (
        "import math, re, hashlib, random, json, heapq, decimal, datetime, itertools, functools, bisect\n"
        "random.seed(0)\ndef f(x): return hashlib.md5(x).hexdigest()[:4]",
        "assert f(b'') == 'd41d'",
    ),
]  # fmt: skip


def test_honest_programs_pass():
    with ThreadPoolExecutor(4) as side_by_side:
        found = list(
            side_by_side.map(
                lambda one: sandbox.run(one[0], LIMITS, tests=one[1], names=interface.names(one[1])), HONEST
            )
        )
    assert found == [Outcome(True, "")] * len(HONEST)


def test_tests_of_humaneval_may_call_what_the_prompt_defines():
    """As HumanEval/32, 38 and 50 do: the helper is the prompt's, whatever the program makes of it."""
    prompt = (
        "def encode(s):\n    return s[::-1]\n\n\ndef decode(s):\n    '''Of what encode gave, the text.'''\n"
    )
    check = "def check(candidate):\n    assert candidate(encode('abc')) == 'abc'\n"
    exercise = problem(prompt, check, "decode")
    assert exercise.grade("    return s[::-1]\n") == {"pass_at_1": 1}
    assert exercise.grade("    return encode(s)\n") == {"pass_at_1": 1}
    assert exercise.grade("    return s\ndef encode(s):\n    return s\n") == {"pass_at_1": 0}


@pytest.mark.skipif(not HUMANEVAL.is_file(), reason="HumanEval is not at ../shared/material/benchmarks")
def test_every_canonical_solution_of_humaneval_passes():
    rows = [json.loads(line) for line in gzip.decompress(HUMANEVAL.read_bytes()).splitlines()]
    assert len(rows) == 164
    with ThreadPoolExecutor(4) as side_by_side:
        grades = side_by_side.map(lambda row: humaneval(row).grade(row["canonical_solution"]), rows)
        failed = [row["task_id"] for row, grade in zip(rows, grades, strict=True) if not grade["pass_at_1"]]
    assert failed == []


BURN = "import time\ndef double(x):\n    while time.process_time() < {}: pass\n    return 2 * x"
SLEEP = "import time\ndef double(x):\n    time.sleep(600)\n    return 2 * x"


@pytest.mark.parametrize(("each", "seconds"), [(6, 0.3), pytest.param(64, 1.0, marks=pytest.mark.slow)])
def test_sleepers_are_ended_and_hold_up_nobody(each: int, seconds: float):
    """A limit of wall time would end honest answers on a busy machine, or wait for sleepers."""
    programs = [BURN.format(seconds), SLEEP] * each
    with ThreadPoolExecutor(2 * each) as side_by_side:
        grades = list(side_by_side.map(graders.code("assert double(2) == 4"), programs))
    assert grades == [1, 0] * each


def test_limits_end_what_goes_beyond_them():
    for program, reason in (
        ("while True: pass", "time"),
        ("import time\ntime.sleep(60)", "time"),
        ("x = bytearray(10 * 2**30)", "MemoryError"),
        ("import os\nwhile True: os.fork()", "PermissionError"),
        ("import os\nos._exit(0)", "exit"),
        ("import os\nos.kill(2, 9)", "ProcessLookupError"),
        ("with open('a', 'wb') as f:\n    while True: f.write(bytes(2**20))", "OSError"),
    ):
        assert sandbox.run(program, LIMITS) == Outcome(False, reason), program


def test_every_system_call_that_is_not_named_is_refused():
    """With those of io_uring (425 to 427) and clone3 (435), and all in the manner of x32.

    Not 335 and 336: uretprobe and uprobe, which no filter sees, end a process that has no probe.
    """
    others = sorted(set(range(600)) - set(syscalls.allowed(platform.machine())) - {335, 336})
    assert {425, 426, 427, 435} < set(others)
    program = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number in {others} + [0x40000000 | number for number in range(600)]:
    ctypes.set_errno(0)
    assert libc.syscall(number, 0, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() == 1, number
"""
    assert sandbox.run(program, LIMITS) == Outcome(True, "")


def test_of_the_disk_there_is_python_and_a_scratch_folder(tmp_path: Path):
    kept = tmp_path / "kept"
    kept.write_text("kept")
    program = f"""
import os
assert sorted(os.listdir('/dev')) == ['null', 'urandom', 'zero']
assert os.listdir('/proc') == os.listdir('/tmp') == []
for path in {[str(kept), __file__, sandbox.__file__, "/etc/passwd", "/sys", "/dev/kmsg", "/etc/shadow"]}:
    assert not os.path.exists(path), path
for path in ('/', '/dev', '/usr/lib', os.path.dirname(os.__file__)):
    try:
        open(path + '/left', 'w')
        assert False, path
    except OSError:
        pass
open('/dev/null', 'w').write('nothing')
"""
    assert sandbox.run(program, LIMITS) == Outcome(True, "")
    assert kept.read_text() == "kept"


GROWTH = """
import resource
from jaxtrain.tasks import sandbox
from cheats import FLOOD, TESTS
sandbox.run("")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for program in (FLOOD, "def double(x): return 'a' * (1 << 28)", "print('a' * (1 << 28))"):
    assert not sandbox.run(program, tests=TESTS, names=["double"]).passed
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_what_a_program_says_does_not_fill_the_memory_of_who_asked():
    path = {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), *sys.path]))}
    found = subprocess.run(
        [sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True, env={**os.environ, **path}
    )
    assert int(found.stdout) < 50 * 1024


def test_a_program_ends_with_who_asked():
    """Killed, who asked can end nothing."""
    sleep = "'import time\\ntime.sleep(600)'"
    forever = f"from jaxtrain.tasks import sandbox\nsandbox.run({sleep}, sandbox.Limits(asleep=600))"
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", forever], env={**os.environ, **path}) as asked:
        inside: set[int] = set()
        # the one that makes the walls, the judge and the program
        while len(inside) < 3:
            assert asked.poll() is None
            lines = {path: path.read_bytes().split(b"\0") for path in Path("/proc").glob("[0-9]*/cmdline")}
            inside = {
                int(path.parent.name) for path, line in lines.items() if str(asked.pid).encode() in line
            }
        ends = [os.pidfd_open(pid) for pid in inside]
        asked.send_signal(signal.SIGKILL)
        for end in ends:
            assert select.select([end], [], [], 30)[0], "outlived who asked"
            os.close(end)


TRY = """
import sys
from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import sandbox
try:
    print(sandbox.run("print()"))
except UserError as refused:
    print(refused)
"""


def test_without_namespaces_nothing_is_run():
    """In a user namespace that may have no others."""
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" -c "$1"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, sys.executable, TRY]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if "max_user_namespaces" in found.stderr:
        pytest.skip(found.stderr)
    assert "code that a model wrote runs in Linux namespaces only" in found.stdout, found.stderr
    assert "refused unshare" in found.stdout
