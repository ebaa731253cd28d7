"""Long work in a log: plain lines on stderr, none on stdout."""

import os
import pty
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


FOOT = """
from jaxtrain.runtime import progress
with progress.live("starting") as show:
    show("step 1/2  50%")
    progress.say("a plain line")
    list(progress.track("abc", "within"))
    show("step 2/2  100%")
"""


def test_the_foot_of_a_terminal_is_written_anew_and_a_log_has_none() -> None:
    ours, theirs = pty.openpty()
    terminal = os.environ | {"TERM": "xterm-256color"}
    with subprocess.Popen([sys.executable, "-c", FOOT], stderr=theirs, env=terminal) as shown:
        os.close(theirs)
        seen = b""
        while part := _read(ours):
            seen += part
    os.close(ours)
    assert shown.returncode == 0
    said = [seen.index(word) for word in (b"a plain line", b"step 1/2  50%", b"step 2/2  100%")]
    assert said == sorted(said) and b"\x1b[2K" in seen, "the line is erased before it is written"
    logged = subprocess.run([sys.executable, "-c", FOOT], capture_output=True, text=True, check=True)
    assert logged.stderr == "a plain line\n"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux says so where the other end is closed
        return b""


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
