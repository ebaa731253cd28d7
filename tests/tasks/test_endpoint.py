"""A judge and a reward model behind HTTP, against a server of the test's own."""

import json
import math
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.endpoint import Judge, reward_model

ROOT = Path(__file__).parents[2]
RUBRIC = "Is the answer short?"


class Stub(BaseHTTPRequestHandler):
    """Judges by length: 10 less a point a word; of `hm` it says nothing, after `say: ` what follows.

    Of `late` it says something when it is asked a fifth time. Scores are the length.
    """

    asked: Counter[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/score":
            found = {"scores": [float(len(text)) for text in body["completions"]]}
        elif self.path == "/v1/chat/completions":
            assert body["messages"][0]["content"].startswith(RUBRIC)
            said = body["messages"][1]["content"].rpartition("# Answer to grade\n")[2]
            self.asked[said] += 1
            points = "I cannot say." if said == "hm" else f"5 words? No.\n{10 - len(said.split())}"
            points = said.removeprefix("say: ") if said.startswith("say: ") else points
            points = "" if said == "late" and self.asked[said] < 5 else points
            found = {"choices": [{"message": {"role": "assistant", "content": points}}]}
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[tuple[str, Counter[str]]]:
    """The server's address, and how often each answer was put to it."""
    handler = type("Handler", (Stub,), {"asked": Counter()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler.asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_answer_is_asked_once_and_counted(stub, tmp_path):
    url, asked = stub
    judge = Judge(f"{url}/v1", "any", RUBRIC, cache=tmp_path / "judged.sqlite")
    grader = judge.grader("Why?", reference="Because.")
    with ThreadPoolExecutor(8) as side_by_side:
        grades = list(side_by_side.map(grader, ["one", "one two", "hm"] * 8))
    assert grades == [0.9, 0.8, 0.0] * 8
    assert asked == {"one": 1, "one two": 1, "hm": 1}
    assert judge.counts() == {"judge_asked": 3, "judge_known": 21, "judge_unread": 8}
    assert judge.grader("Why not?")("one") == 0.9
    assert asked["one"] == 2, "another question"


@pytest.mark.parametrize(
    ("said", "grade"),
    [
        ("Mostly wrong.\n3/10", 0.3),
        ("Score: 2 out of 10", 0.2),
        ("**7.5**", 0.75),
        ("10", 1.0),
        ("11", None),
        ("-3", None),
        ("between 3 and 5", None),
        ("3/5", None),
        ("", None),
    ],
)
def test_a_number_is_read_on_the_judges_scale_or_not_at_all(stub, tmp_path, said, grade):
    judge = Judge(f"{stub[0]}/v1", "any", RUBRIC, cache=tmp_path / "judged.sqlite")
    assert judge.grader("Why?")(f"say: {said}") == (grade or 0.0)
    assert judge.counts()["judge_unread"] == (grade is None)


def test_nothing_said_is_not_kept_but_asked_again(stub, tmp_path):
    url, asked = stub
    file = tmp_path / "judged.sqlite"
    assert Judge(f"{url}/v1", "any", RUBRIC, cache=file).grader("Why?")("late") == 0.0
    assert asked["late"] == 3, "at once, too"
    assert [Judge(f"{url}/v1", "any", RUBRIC, cache=file).grader("Why?")("late") for _ in range(2)] == [
        0.9
    ] * 2
    assert asked["late"] == 5


def test_what_was_judged_outlives_a_killed_process(stub, tmp_path):
    url, asked = stub
    file = tmp_path / "judged.sqlite"
    lines = (
        "import os, sys\nfrom jaxtrain.tasks.endpoint import Judge\n"
        f"judge = Judge({url + '/v1'!r}, 'any', {RUBRIC!r}, cache={str(file)!r})\n"
        "[judge.grader('Why?')(said) for said in ('one', 'two')]\nos.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", lines], cwd=ROOT, check=False).returncode == -9
    judge = Judge(f"{url}/v1", "any", RUBRIC, cache=file)
    assert [judge.grader("Why?")(said) for said in ("one", "two", "three")] == [0.9] * 3
    assert asked == {"one": 1, "two": 1, "three": 1}


def test_a_reward_models_score_is_a_grade(stub):
    assert reward_model(stub[0], "Hi")("abc") == pytest.approx(1 / (1 + math.exp(-3)))


def test_a_server_that_gives_no_answer_is_one_line(stub, tmp_path):
    with pytest.raises(UserError, match=r"server at .*/none/chat/completions gives no answer .*404"):
        Judge(f"{stub[0]}/none", "any", RUBRIC, cache=tmp_path / "a.sqlite").grader("Why?")("one")
    with pytest.raises(UserError, match="is no address of a server"):
        reward_model("file:///etc", "Hi")("abc")
