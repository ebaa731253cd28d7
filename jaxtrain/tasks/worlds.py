"""Tools and worlds of our own, and the tasks that are played in them."""

import ast
import operator
import random
from collections.abc import Callable, Iterator
from typing import Any

from jaxtrain.tasks import graders, interface, sandbox
from jaxtrain.tasks.environment import Episode, Reply
from jaxtrain.tasks.task import Exercise, Row, Split, Task

LARGEST = 10**100
MEASURED, PRACTISED = 500, 5_000
_OPERATORS: dict[type, Callable[..., Any]] = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv},
    **{
        ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod,
        ast.USub: operator.neg,
        ast.UAdd: operator.pos,
    },
}


def calculator(expression: str) -> str:
    """Work out an expression of numbers, + - * / // % and brackets, such as 12 * (3 + 4)."""
    return str(_value(ast.parse(expression.strip(), mode="eval").body))


def _value(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            found = value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            found = _OPERATORS[type(op)](_value(left), _value(right))
        case ast.UnaryOp(op=op, operand=one) if type(op) in _OPERATORS:
            found = _OPERATORS[type(op)](_value(one))
        case _:
            raise ValueError(f"{ast.unparse(node)} is nothing to work out")
    if abs(found) > LARGEST:
        raise ValueError("the result is too large")
    return found


def multiply(x: int, y: int) -> int:
    """Multiply two whole numbers."""
    return x * y


class Guess:
    """A number from 1 to `most` is to be found; the sooner, the more it is worth."""

    def __init__(self, number: int, most: int, guesses: int):
        self.number, self.most, self.guesses, self.left = number, most, guesses, guesses

    def start(self) -> str:
        return f"I think of a number from 1 to {self.most}. Guess it."

    def step(self, said: str) -> Reply:
        self.left -= 1
        if graders.number(str(self.number))(said):
            return Reply(reward=(self.left + 1) / self.guesses, done=True)
        guessed = graders.last_number(said)
        if guessed is None:
            return Reply("Say a number.", done=self.left == 0)
        return Reply("Higher." if guessed < self.number else "Lower.", done=self.left == 0)


class Programming:
    """A program is asked for and tested in the sandbox; what went wrong is told, and it is asked again."""

    def __init__(self, asked: str, tests: str, tries: int = 3):
        """ValueError for tests that need more of a program than calls with plain values."""
        self.asked, self.tests, self.left, self.names = asked, tests, tries, interface.names(tests)

    def start(self) -> str:
        return self.asked

    def step(self, said: str) -> Reply:
        found = sandbox.run(graders.program_in(said), tests=self.tests, names=self.names)
        self.left -= 1
        if found.passed:
            return Reply(reward=1.0, done=True)
        return Reply(
            f"The tests fail: {found.reason}. Mend the program and give all of it.", done=not self.left
        )


def _rows(make: Callable[[random.Random], Row]) -> Callable[[Split], Iterator[Row]]:
    """`Task.make` of rows that are drawn: what is practised is none of what is measured."""

    def rows(split: Split) -> Iterator[Row]:
        rng, seen = random.Random(0), set[str]()
        while len(seen) < MEASURED + PRACTISED:
            row = make(rng)
            if str(row) not in seen:
                seen.add(str(row))
                if (len(seen) <= MEASURED) == (split == "heldout"):
                    yield row

    return rows


def _products(row: Row) -> Exercise:
    a, b, c = row["factors"]
    return Exercise(
        prompt=f"What is {a} times {b}, and that times {c}?",
        graders={"number": graders.number(str(a * b * c))},
        chat=True,
        tools=(multiply,),
        turns=4,
        tokens=64,
    )


def _guess(row: Row) -> Episode:
    return Episode(begin=lambda: Guess(row["number"], row["most"], guesses=7), turns=7, tokens=16)


TASKS = (
    Task(
        name="products",
        version=2,
        metric="number",
        make=_rows(lambda rng: {"factors": [rng.randint(1000, 9999) for _ in range(3)]}),
        parse=_products,
    ),
    Task(
        name="guess",
        version=1,
        metric="reward",
        make=_rows(lambda rng: {"number": rng.randint(1, (most := rng.randint(10, 500))), "most": most}),
        parse=_guess,
    ),
)
"""products: two calls of `multiply`, of which the second needs the first's result. guess: a text game."""
