"""`jaxtrain chat` and `jaxtrain serve` as a person at the terminal sees them."""

import signal
import socket
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator

import httpx2
import pytest
from parrot import TALK

from jaxtrain import cli
from jaxtrain.serve import run as serve


@pytest.fixture
def typed(monkeypatch):
    """Type these lines, then Ctrl-D."""

    def type_in(*lines: str) -> None:
        waiting: Iterator[str] = iter(lines)

        def read(prompt: str = "") -> str:
            try:
                return next(waiting)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", read)

    return type_in


ONE_DEVICE = ["--mesh.data", "8", "--mesh.tensor", "1"]


def test_a_conversation_in_the_terminal(folder, typed, capsys):
    typed("What is two and two?", "/retry", "/clear", "/retry", "/help", "", "Say it in German: good day")
    cli.main(["chat", str(folder), "--temperature", "0", *ONE_DEVICE])
    out = capsys.readouterr().out
    assert out.count(TALK["What is two and two?"]) == 2, "asked for again"
    assert TALK["Say it in German: good day"] in out and "no answer to ask for again" in out
    assert out.count("/clear begins anew") == 2 and "tokens, " in out


def test_eight_bits_say_the_same(folder, typed, capsys):
    typed("What is two and two?")
    cli.main(["chat", str(folder), "--weights", "int8", "--temperature", "0", *ONE_DEVICE])
    assert TALK["What is two and two?"] in capsys.readouterr().out


def test_what_a_model_says_does_not_steer_the_terminal(folder, typed, capsys):
    """Tokens drawn evenly: one in twenty is a control character."""
    typed("What is two and two?")
    even = ["--temperature", "100", "--top_p", "1", "--max_new", "200", "--seed", "0"]
    cli.main(["chat", str(folder), *even, *ONE_DEVICE])
    out = capsys.readouterr().out
    assert r"\x" in out and {letter for letter in out if unicodedata.category(letter) == "Cc"} <= {"\n", "\t"}


def test_mistakes_are_one_line(folder, capsys, tmp_path):
    for arguments, words in (
        (["chat"], None),
        (["chat", "--temperature", "1"], "chat takes MODEL before --temperature"),
        (["serve", str(folder), "--prot", "1"], "did you mean --port?"),
        (["serve", str(tmp_path)], "holds no model"),
        (["serve", str(folder), "--host", "0.0.0.0"], "name an api_key_file"),
        (["serve", str(folder), "--api_key_file", str(tmp_path / "key")], "does not exist; write a long"),
    ):
        if words is None:
            cli.main(arguments)
            assert "--temperature" in capsys.readouterr().out
            continue
        with pytest.raises(SystemExit):
            cli.main(arguments)
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("jaxtrain: ") and words in line
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = serve.ServeConfig(model=str(folder), port=taken.getsockname()[1])
        with pytest.raises(serve.UserError, match="name another port"):
            serve.run(config)


@pytest.mark.slow
def test_a_served_process_ends_in_order(folder):
    """From the command line: it answers, and SIGTERM ends it with status 0."""
    command = [sys.executable, "-m", "jaxtrain", "serve", str(folder), "--port", "0", *ONE_DEVICE]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        killer = threading.Timer(300, process.kill)
        killer.start()
        line = next(line for line in process.stderr if "chat at " in line)
        address = line.split("chat at ")[1].split("/,")[0]
        asked = {"messages": [{"role": "user", "content": "Count."}], "temperature": 0}
        found = httpx2.post(f"{address}/v1/chat/completions", json=asked, timeout=60).json()
        assert found["choices"][0]["message"]["content"] == TALK["Count."]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
        killer.cancel()
