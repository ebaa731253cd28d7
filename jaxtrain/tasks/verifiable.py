"""Questions whose answers a program can check, and the checks: each is a reward between 0 and 1.

The file is that of GSM8K (Cobbe et al. 2021): a JSON object a line with `question` and `answer`; what stands
behind `####` in an answer is its result. Where programs are asked for, `answer` is the tests that they have
to pass: `assert double(2) == 4`. They call functions of the program with plain values (`interface.py`).
"""

import gzip
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import interface, sandbox

_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_RESULT = re.compile(r"####\s*(-?[\d.,]*\d)\s*\Z")
_FENCED = re.compile(r"^```(?:python|py)?[ \t]*\n(.*?)(?:^```|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Problem:
    question: str
    answer: str


def read_problems(path: str | Path) -> list[Problem]:
    """All problems of a `.jsonl` or `.jsonl.gz` file; UserError names the line that is none."""
    path, found = Path(path), []
    if not path.is_file():
        raise UserError(f"no problems at {path}; give a .jsonl file of `question` and `answer`")
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                problem = Problem(row["question"].strip(), row["answer"].strip())
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise UserError(f"{path}, line {number} is no problem ({reason}); mend the line") from error
            if not problem.question or not problem.answer:
                raise UserError(f"{path}, line {number}: question or answer is empty; mend the line")
            found.append(problem)
    if not found:
        raise UserError(f"{path} is empty; give a file with problems")
    return found


def exact(said: str, answer: str) -> float:
    """1 where the whole answer is the right one, spaces around it aside."""
    return float(said.strip() == answer.strip())


def number(said: str, answer: str) -> float:
    """1 where the last number said is the answer's last: `1,000`, `$1000.` and `#### 1000` are the same."""
    wanted, found = _NUMBER.findall(answer), _NUMBER.findall(said)
    return float(bool(wanted and found) and _value(found[-1]) == _value(wanted[-1]))


def result(said: str, answer: str) -> float:
    """1 where the answer ends in `#### ` and the right number, as GSM8K's do."""
    found = _RESULT.search(said.strip())
    return number(found[1], answer) if found else 0.0


def form(said: str, answer: str) -> float:
    """1 where the answer ends in `#### ` and any number: pays for the form alone."""
    return float(_RESULT.search(said.strip()) is not None)


def code(said: str, tests: str) -> float:
    """1 where the Python said passes `tests` in the sandbox: the last fenced block, or the whole answer.

    Errors: UserError where the kernel cannot shut the program in (nothing is run then), or for such tests as
    `check_tests` refuses.
    """
    blocks = _FENCED.findall(said)
    program = blocks[-1] if blocks else said
    return float(sandbox.run(program, tests=tests, names=_names(tests)).passed)


def check_tests(path: str | Path, problems: Iterable[Problem]) -> None:
    """UserError where the tests of a problem need more of a program than calls with plain values."""
    for number, problem in enumerate(problems, 1):
        try:
            _names(problem.answer)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from error


@cache
def _names(tests: str) -> tuple[str, ...]:
    try:
        return interface.names(tests)
    except ValueError as error:
        raise UserError(f"no program can be held against this `answer`: {error}; mend the tests") from error


GRADERS: dict[str, Callable[[str, str], float]] = {
    "exact": exact,
    "number": number,
    "result": result,
    "form": form,
    "code": code,
}
"""Name to grade of (what was said, the right answer)."""


def _value(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))
