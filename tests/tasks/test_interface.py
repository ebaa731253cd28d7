"""What tests may ask of the program that they test; what they may not is said when they are read."""

import pytest

from jaxtrain.tasks import graders, interface


@pytest.mark.parametrize(
    ("tests", "names"),
    [
        ("assert double(2) == 4", ["double"]),
        ("import math\nassert math.isclose(area(r=1), math.pi)", ["area"]),
        ("def check(f):\n    assert f(1) == 1\ncheck(g)", ["g"]),
        ("for n in range(3):\n    assert f(n) == g(n)", ["f", "g"]),
        ("class T:\n    def test(self): assert f(1).upper() == 'A'\nT().test()", ["f"]),
        ("x = f(1)\nx.append(2)\nassert x == [1, 2] and f(1) == [1]", ["f"]),
        ("import random\nr = random.Random(0)\nassert f(r.random()) < 1", ["f"]),
        ("assert LIMIT == 3 and all(map(even, [2, 4]))", ["LIMIT", "even"]),
        ("assert sorted(f([3, 1]), key=lambda n: -n) == [3, 1]", ["f"]),
    ],
)
def test_the_names_of_the_program(tests: str, names: list[str]):
    assert interface.names(tests) == tuple(names)


def test_what_the_prompt_defines_is_not_the_programs_but_for_the_entry_point():
    prompt = "import math\ndef poly(x):\n    return x\n\ndef zero(xs):\n    '''A zero.'''\n"
    assert interface.names("assert math.isclose(poly(zero([1])), 0)", prompt, "zero") == ("zero",)


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        ("assert Stack.empty", "line 1 of the tests needs Stack.empty"),
        ("\nassert Stack().push(1)", "line 2 of the tests needs .push of an answer"),
        ("s = Stack()\ns.push(1)", "line 2 of the tests needs .push"),
        ("class Mine(Base): pass", "needs Base itself"),
        ("assert isinstance(f(1), Point)", "needs Point itself"),
        ("try:\n    f(1)\nexcept Odd:\n    pass", "needs Odd itself"),
        ("@cached\ndef f(): pass", "needs cached itself"),
        ("assert apply(lambda x: x, 1) == 1", "hands apply a function"),
        ("def check(c):\n    assert c(lambda x: x)\ncheck(f)", "hands c a function"),
        ("import numpy as np\nassert f(1) == 1", "imports numpy: only Python's own"),
        ("from solution import f\nassert f(1) == 1\ng(1)", "imports solution"),
        ("assert eval(f(1)) == 2", "uses eval, which could run what the program answers"),
        ("import pickle\nassert pickle.loads(f(1)) == 2", "imports pickle, which could run"),
        ("assert double(2 == 4", "the tests are no Python"),
        ("assert double(2)\0", "the tests are no Python"),
        ("assert 1 + 1 == 2", "name no function of the program"),
        ("68", "name no function of the program"),
        ("", "name no function of the program"),
    ],
)
def test_tests_that_need_more_are_refused_when_they_are_read(tests: str, words: str):
    with pytest.raises(ValueError, match=words):
        interface.names(tests)
    with pytest.raises(ValueError, match=words):
        graders.code(tests)
