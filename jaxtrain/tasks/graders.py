"""Graders: what an answer is worth, between 0 and 1. Each grades a benchmark and pays for practice alike.

    Exercise(prompt="6 · 7 = ", graders={"number": number("42"), "short": length(5)})

A grader is any function of the text of an answer; those here are made of what is right (`number("42")`).
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial

from jaxtrain.tasks import interface, sandbox

Grader = Callable[[str], float]

_WORD = re.compile(r"[a-z0-9]+")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_GSM8K_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_GSM8K_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_GSM8K_FORM = re.compile(r"####\s*-?[\d.,]*\d\s*\Z")
_FENCED = re.compile(r"^```(?:python|py)?[ \t]*\n(.*?)(?:^```|\Z)", re.MULTILINE | re.DOTALL)
_CHOICES = (r"answer(?: is|:)\W*([{0}])\b", r"\(([{0}])\)", r"\b([{0}])\b")
"""Where a letter is named: as the answer, in brackets, or alone; the first of these that is there counts."""


def exact(answer: str) -> Grader:
    """1 where the whole answer is the right one, spaces around it aside."""
    return lambda said: float(said.strip() == answer.strip())


def bare(answer: str) -> Grader:
    """1 where the whole answer is the right one, case and final point aside."""
    plain = lambda text: text.strip().removesuffix(".").lower()  # noqa: E731
    return lambda said: float(plain(said) == plain(answer))


def number(answer: str) -> Grader:
    """1 where the last number said is the answer's last: `1,000`, `$1000.` and `#### 1000` are the same."""

    def last(text: str) -> Decimal | None:
        found = _NUMBER.findall(text)
        return Decimal(found[-1].replace(",", "")) if found else None

    wanted = last(answer)
    return lambda said: float(wanted is not None and last(said) == wanted)


def gsm8k(answer: str) -> dict[str, Grader]:
    """GSM8K's graders for a row's answer, whose last line is `#### number`; ValueError where it is not.

    strict: the first number behind #### is right; flexible: the last number is; both as in lm-eval. form: the
    answer ends in #### and any number.
    """
    plain = lambda text: re.sub(r"\.$", "", re.sub(r"[,$]", "", text.strip()))  # noqa: E731
    if (right := _GSM8K_STRICT.search(answer)) is None:
        raise ValueError("the answer has no line `#### number`")

    def first(pattern: re.Pattern[str], at: int, said: str) -> float:
        found = pattern.findall(said)
        return float(bool(found) and plain(found[at]) == plain(right[1]))

    return {
        "strict": partial(first, _GSM8K_STRICT, 0),
        "flexible": partial(first, _GSM8K_FLEXIBLE, -1),
        "form": form(_GSM8K_FORM),
    }


def form(pattern: str | re.Pattern[str]) -> Grader:
    """1 where the answer, without blanks around it, has a place that the pattern matches: pays for form."""
    return lambda said: float(re.search(pattern, said.strip()) is not None)


def choice(letter: str, letters: str = "ABCD") -> Grader:
    """1 where the answer names the right choice's letter, and none of `letters` in that way after it."""

    def grade(said: str) -> float:
        named = (re.findall(pattern.format(letters), said) for pattern in _CHOICES)
        return float(next((found[-1] for found in named if found), "") == letter)

    return grade


def similarity(references: Sequence[str]) -> Grader:
    """ROUGE-L to the nearest reference: F1 of the longest common subsequence of words (Lin 2004)."""
    words = [_WORD.findall(reference.lower()) for reference in references]
    return lambda said: max(_rouge_l(_WORD.findall(said.lower()), theirs) for theirs in words)


def _rouge_l(mine: list[str], theirs: list[str]) -> float:
    lengths = [0] * (len(theirs) + 1)
    for word in mine:
        diagonal = 0
        for i, other in enumerate(theirs, 1):
            longest = diagonal + 1 if word == other else max(lengths[i], lengths[i - 1])
            diagonal, lengths[i] = lengths[i], longest
    return 2 * lengths[-1] / (len(mine) + len(theirs)) if lengths[-1] else 0.0


def code(tests: str, prompt: str = "", entry_point: str = "", behind: str = "") -> Grader:
    """1 where the Python said passes `tests` in the sandbox: the last fenced block, or the whole answer.

    prompt: what the tests may use beside the program (`interface.names`). behind: what the answer goes on
    from; it is run as it stands then, fences and all.
    Errors: ValueError for tests that need more of a program than calls with plain values; of the grader
    UserError where the kernel cannot shut a program in (nothing is run then).
    """
    names = interface.names(tests, prompt, entry_point)

    def grade(said: str) -> float:
        blocks = [] if behind else _FENCED.findall(said)
        program = behind + (blocks[-1] if blocks else said)
        return float(sandbox.run(program, tests=tests, prompt=prompt, names=names).passed)

    return grade
