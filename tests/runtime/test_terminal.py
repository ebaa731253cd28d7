"""What would steer a terminal is shown."""

import pytest

from jaxtrain import cli
from jaxtrain.runtime.progress import say
from jaxtrain.runtime.terminal import visible


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain, é, 漢, \U0001f337\n\tnext", "plain, é, 漢, \U0001f337\n\tnext"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x00\x07\r\x7f", r"\x00\x07\r\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("a\u202eb\u2066", r"a\u202eb\u2066"),
        ("\ud800", r"\ud800"),
        ("[bold]a", "[bold]a"),
    ],
)
def test_visible(text: str, seen: str):
    assert visible(text) == seen


def test_lines_of_the_log_and_errors_are_visible(tmp_path, capsys):
    say("a\x1b[2Jb [bold]")
    with pytest.raises(SystemExit) as ended:
        cli.main(["inspect", str(tmp_path / "a\x1b[2Jb")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count(r"a\x1b[2Jb") == 2
