"""Tools as a model sees and calls them, and worlds of our own."""

from threading import Event
from typing import Literal

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import catalog, environment, sandbox
from jaxtrain.tasks.environment import answered, as_messages, described
from jaxtrain.tasks.worlds import Guess, Programming, calculator


def add(x: int, y: int = 2, how: Literal["fast", "well"] = "well") -> int:
    """Add two numbers.

    Not shown.
    """
    return x + y


def split(text: str, at: list[float]) -> dict:
    raise OSError("no room")


def test_a_function_is_described_by_its_types():
    assert described(add)["function"] == {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {
                "x": {"type": "integer"},
                "y": {"type": "integer"},
                "how": {"type": "string", "enum": ["fast", "well"]},
            },
            "required": ["x"],
        },
    }
    at = described(split)["function"]["parameters"]["properties"]["at"]
    assert at == {"type": "array", "items": {"type": "number"}}
    with pytest.raises(ValueError, match="argument x of a tool"):
        described(lambda x: x)


@pytest.mark.parametrize(
    ("call", "said", "failed"),
    [
        (("add", {"x": 1}), "3", 0),
        (("add", {"x": 1, "y": 1, "how": "fast"}), "2", 0),
        (("add", {"x": "1"}), "error: argument x is no integer", 1),
        (("add", {"x": True}), "error: argument x is no integer", 1),
        (("add", {"x": 1, "how": "badly"}), "error: argument how is no ['fast', 'well']", 1),
        (("add", {}), "error: argument x is missing", 1),
        (("add", {"x": 1, "z": 1}), "error: no argument z; there are x, y, how", 1),
        (("mul", {"x": 1}), "error: no tool mul; there are add, split", 1),
        (("split", {"text": "", "at": []}), "error: no room", 1),
    ],
)
def test_what_a_tool_says_to_a_call(call, said, failed):
    (message,), count = answered([call], [add, split], seconds=60)
    assert (message["content"], count) == (said, failed)
    assert message["tool_call_id"] == as_messages([call])[0]["id"]


def hang() -> str:
    Event().wait()
    return ""


def test_a_call_that_hangs_is_told_and_counted_and_the_next_one_is_taken(monkeypatch):
    monkeypatch.setattr(environment, "CALL_SECONDS", 0.1)
    messages, failed = answered([("hang", {}), ("add", {"x": 1})], [hang, add], seconds=60)
    assert [one["content"] for one in messages] == ["error: hang did not answer within 0.1 seconds", "3"]
    assert failed == 1
    messages, failed = answered([("hang", {})] * 50, [hang], seconds=0.2)
    assert failed == 50, "all of them together have no more than is left"


@pytest.mark.parametrize(
    ("expression", "value"),
    [("1234 * 5678", "7006652"), ("-7 // 2 + (1 + 2) % 2", "-3"), (" 1 / 4", "0.25")],
)
def test_the_calculator_works_out_numbers(expression, value):
    assert calculator(expression) == value


@pytest.mark.parametrize(
    "expression", ["2 ** 9", "a", "f(1)", "'a' * 9", "True + 1", "1 +", "9" * 99 + "* 99"]
)
def test_the_calculator_does_nothing_else(expression):
    assert answered([("calculator", {"expression": expression})], [calculator], seconds=60)[1] == 1


def test_a_guess_is_worth_more_the_sooner_it_is_right():
    game = Guess(number=5, most=9, guesses=3)
    replies = [game.step(said) for said in ("It is 7", "3?", "5")]
    assert [reply.text for reply in replies] == ["Lower.", "Higher.", ""]
    assert (replies[-1].reward, replies[-1].done) == (pytest.approx(1 / 3), True)
    game = Guess(number=5, most=9, guesses=1)
    assert game.step("no").done


def test_a_program_is_mended_until_its_tests_pass():
    try:
        sandbox.run("")
    except UserError as refused:
        pytest.skip(str(refused))
    world = Programming("Write double(x).", "assert double(2) == 4 and double(3) == 6", tries=3)
    first, second = (world.step(f"```python\ndef double(x): return x {what} 2\n```") for what in ("**", "*"))
    assert "AssertionError" in first.text and not first.done
    assert (second.reward, second.done) == (1.0, True)


@pytest.mark.parametrize("name", ["products", "guess"])
def test_what_is_practised_is_not_what_is_measured(name):
    task = catalog.find(name)
    measured, practised = task.rows(), task.rows(split="practice")
    assert (len(measured), len(practised)) == (500, 5000)
    assert not {str(row) for row in measured} & {str(row) for row in practised}
    assert measured == task.rows(), "the same every time"
