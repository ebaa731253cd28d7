"""Graders of what a program can check, on answers as models give them."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import sandbox
from jaxtrain.tasks.verifiable import GRADERS, read_problems

ROOT = Path(__file__).parents[2]
GSM8K = ROOT.parent / "shared" / "material" / "benchmarks" / "gsm8k-test.jsonl"


@pytest.mark.parametrize(
    ("grader", "said", "answer", "grade"),
    [
        ("exact", " 68\n", "68", 1),
        ("exact", "68.", "68", 0),
        ("exact", "", "68", 0),
        ("number", "so she pays $1,000.50.", "#### 1000.5", 1),
        ("number", "It is 12, no, 18!", "6*3=<<6*3=18>>18\n#### 18", 1),
        ("number", "It is 18, no, 12!", "6*3=<<6*3=18>>18\n#### 18", 0),
        ("number", "-5", "#### 5", 0),
        ("number", "five", "#### 5", 0),
        ("number", "1000", "#### 1,000", 1),
        ("result", "6 and 12 are 18\n#### 18", "#### 18", 1),
        ("result", "#### 18 or 19", "#### 18", 0),
        ("result", "it is 18", "#### 18", 0),
        ("form", "#### 17", "#### 18", 1),
        ("form", "#### 17 apples", "#### 18", 0),
    ],
)
def test_grades(grader, said, answer, grade):
    assert GRADERS[grader](said, answer) == grade


TESTS = "assert double(2) == 4\nassert double(-1) == -2"


@pytest.fixture(scope="module")
def can_shut_in() -> None:
    try:
        sandbox.run("")
    except UserError as refused:
        pytest.skip(str(refused))


@pytest.mark.parametrize(
    ("said", "grade"),
    [
        ("def double(x):\n    return 2 * x", 1),
        ("Of course:\n```python\ndef double(x):\n    return 2 * x\n```\nIt adds x to x.", 1),
        ("```\nno\n```\nor rather\n```py\ndef double(x):\n    return x + x\n", 1),  # cut short behind it
        ("def double(x):\n    return x**2", 0),
        ("def double(x):\n    return 2 * x\nimport sys\nsys.exit(0)", 0),
        ("def double(x): return 2 x", 0),
        ("Of course: def double(x): ...", 0),
        ("", 0),
    ],
)
@pytest.mark.usefixtures("can_shut_in")
def test_a_program_is_worth_what_its_tests_say(said, grade):
    assert GRADERS["code"](said, TESTS) == grade


def test_no_program_is_run_where_it_cannot_be_shut_in():
    """In a user namespace that may have no others."""
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" -c "$1"'
    grade = "from jaxtrain.tasks.verifiable import GRADERS\nGRADERS['code']('', 'assert f()')"
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, sys.executable, grade]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if "max_user_namespaces" in found.stderr or "unshare failed" in found.stderr:
        pytest.skip(found.stderr)
    assert found.returncode == 1
    assert "UserError: code that a model wrote runs in Linux namespaces only" in found.stderr


@pytest.mark.skipif(not GSM8K.is_file(), reason="GSM8K is not at ../shared/material/benchmarks")
def test_every_right_answer_of_gsm8k_is_right_and_none_of_its_neighbour_is():
    problems = read_problems(GSM8K)
    assert len(problems) == 1319
    for grader in ("number", "result", "form"):
        assert all(GRADERS[grader](p.answer, p.answer) == 1 for p in problems), grader
    others = [GRADERS["result"](q.answer, p.answer) for p, q in zip(problems, problems[1:], strict=False)]
    same = [
        q.answer.rsplit("####")[-1] == p.answer.rsplit("####")[-1]
        for p, q in zip(problems, problems[1:], strict=False)
    ]
    assert [grade == 1 for grade in others] == same


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"question": "1+1"}', "line 2 is no problem .KeyError: 'answer'"),
        ('{"question": "1+1", "answer": ""}', "line 2: question or answer is empty"),
        ("[]", "line 2 is no problem"),
        ("{", "line 2 is no problem"),
    ],
)
def test_a_line_that_is_no_problem_is_named(tmp_path, line, words):
    file = tmp_path / "problems.jsonl"
    file.write_text('{"question": "1+1", "answer": "2"}\n' + line + "\n")
    with pytest.raises(UserError, match=words):
        read_problems(file)
    with pytest.raises(UserError, match="no problems at"):
        read_problems(tmp_path / "none.jsonl")
