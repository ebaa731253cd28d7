"""Code that a model wrote: what it may do, and that the machine is unharmed by what it may not."""

import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import humaneval, sandbox
from jaxtrain.tasks.sandbox import Limits, Outcome

LIMITS = Limits(seconds=1)
pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="the sandbox is Linux's")


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    try:
        sandbox.run("")
    except UserError as refused:
        pytest.skip(str(refused))


def test_a_solution_passes():
    assert sandbox.run("import math, collections, re, hashlib\nassert math.sqrt(4) == 2", LIMITS) == Outcome(
        True, ""
    )


def test_it_may_write_in_its_scratch_folder_alone(tmp_path: Path):
    assert sandbox.run("open('a', 'w').write('hi')\nassert open('a').read() == 'hi'", LIMITS).passed
    file = tmp_path / "kept"
    file.write_text("kept")
    here = Path(__file__)
    before = here.read_bytes()
    for path in (file, here):
        assert not sandbox.run(f"open({str(path)!r}, 'w').write('gone')", LIMITS).passed
        assert not sandbox.run(f"import os\nos.remove({str(path)!r})", LIMITS).passed
        assert not sandbox.run(f"import shutil\nshutil.rmtree({str(path.parent)!r})", LIMITS).passed
    assert file.read_text() == "kept" and here.read_bytes() == before


def test_a_fork_bomb_has_no_processes():
    before = len(list(Path("/proc").glob("[0-9]*")))
    assert sandbox.run("import os\nwhile True: os.fork()", LIMITS) == Outcome(False, "PermissionError")
    assert len(list(Path("/proc").glob("[0-9]*"))) < before + 50
    for code in (
        "import subprocess\nsubprocess.run(['true'])",
        "import threading\nthreading.Thread().start()",
    ):
        assert not sandbox.run(code, LIMITS).passed


@pytest.mark.parametrize("code", ["while True: pass", "import time\ntime.sleep(60)"])
def test_what_does_not_end_is_ended(code: str):
    assert sandbox.run(code, LIMITS) == Outcome(False, "time")


def test_memory_and_disk_are_bounded():
    assert sandbox.run("x = bytearray(10 * 2**30)", LIMITS) == Outcome(False, "MemoryError")
    flood = "with open('a', 'wb') as f:\n    while True: f.write(bytes(2**20))"
    assert not sandbox.run(flood, LIMITS).passed


def test_the_network_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()  # so one can reach it from outside
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)"
        assert not sandbox.run(code, LIMITS).passed
        with pytest.raises(TimeoutError):
            server.accept()


def test_other_processes_are_out_of_reach():
    code = f"import os\nassert os.listdir('/proc') == []\nos.kill({os.getpid()}, 9)"
    assert sandbox.run(code, LIMITS) == Outcome(False, "ProcessLookupError")


@pytest.mark.parametrize("code", ["import sys\nsys.exit(0)", "import os\nos._exit(0)", "def f(:", "1 / 0"])
def test_leaving_early_or_broken_is_no_success(code: str):
    assert not sandbox.run(code, LIMITS).passed


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


def test_humaneval_grades_by_its_tests():
    row = {
        "prompt": 'def double(x):\n    """Twice x."""\n',
        "test": "def check(candidate):\n    assert candidate(2) == 4\n",
        "entry_point": "double",
    }
    exercise = humaneval.parse(row)
    assert exercise.grade("    return 2 * x\n") == {"pass_at_1": 1.0}
    assert exercise.grade("    return 3 * x\n") == {"pass_at_1": 0.0}
    assert exercise.grade("    import sys\n    sys.exit(0)\n") == {"pass_at_1": 0.0}
