"""Long work in a log: plain lines on stderr, none on stdout."""

import subprocess
import sys

import pytest

from jaxtrain.runtime import progress

WORK = """
from jaxtrain.runtime import progress
progress.LINE_SECONDS = 0
assert list(progress.track(iter("abc"), "read letters", total=3)) == ["a", "b", "c"]
assert list(progress.track([1, 2], "count")) == [1, 2]
print("result")
"""


def test_a_log_gets_plain_lines_and_stdout_only_results() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    assert done.stdout == "result\n"
    every = [f"read letters: {n} of 3" for n in (1, 2, 3)] + [f"count: {n} of 2" for n in (1, 2)]
    assert done.stderr.splitlines() == every


def test_markup_in_a_message_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    progress.say("collect [bold] <web>: 1 of 2")
    assert capsys.readouterr().err == "collect [bold] <web>: 1 of 2\n"


def test_items_are_not_read_ahead() -> None:
    read: list[int] = []
    items = progress.track((read.append(n) or n for n in range(3)), "read")
    assert next(iter(items)) == 0 and read == [0]
