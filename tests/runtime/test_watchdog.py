"""What hangs is ended with the stacks of all threads; what goes on is left alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxtrain.runtime.watchdog import Watchdog, WatchdogConfig

HANGS = """
import sys, threading
from pathlib import Path
from jaxtrain.runtime.watchdog import Watchdog, WatchdogConfig

def waits_for_a_batch_that_never_comes():
    threading.Event().wait()

config = WatchdogConfig(**{sys.argv[1] + "_minutes": 0.01})
with Watchdog(config, Path(sys.argv[2])) as watchdog:
    watchdog.phase(sys.argv[1])
    waits_for_a_batch_that_never_comes()
"""


@pytest.mark.parametrize("phase", ["start", "step", "save"])
def test_a_phase_past_its_limit_ends_the_process_with_its_stacks(phase: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANGS, phase, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 124
    assert ended.stderr.startswith(f"hung: {phase} took longer than its 0.01 minutes")
    for told in (ended.stderr, (tmp_path / "hang.txt").read_text()):
        assert "waits_for_a_batch_that_never_comes" in told and "Thread" in told


ENDS = """
import sys
from pathlib import Path
from jaxtrain.runtime.watchdog import Watchdog, WatchdogConfig

with Watchdog(WatchdogConfig(step_minutes=0.5, save_minutes=0.0), Path(sys.argv[1])) as watchdog:
    for _ in range(1000):
        watchdog.phase("step")
    watchdog.phase("save")  # as long as it likes
"""


def test_a_run_in_time_is_left_alone(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", ENDS, str(tmp_path)], check=True, timeout=60)
    assert not (tmp_path / "hang.txt").exists()


def test_its_thread_ends_with_it(tmp_path: Path) -> None:
    with Watchdog(WatchdogConfig(), tmp_path) as watchdog:
        assert watchdog._thread.is_alive()
    assert not watchdog._thread.is_alive()
