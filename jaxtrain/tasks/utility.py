"""The stated true utility of the quickstart's simulated raters: a grader of text that needs no model.

Simulated raters stand in for people where a loop must run unattended. What they want is known exactly, so
the report can show how far a reward model found it, and where optimising the reward model left it behind.
They like warm, plain, varied English in sentences; they do not care how long an answer is.

    U = 2 (1 - e^-g) - 2 (1 - e^-b) - 4 r - 2 u - 4 max(0, 0.3 - f) + 0.25 s

g   distinct good words for every ten words       b   distinct bad words for every ten words
r   share of words that occurred among the ten words before them, function words aside
u   share of tokens that are no common English word: rare words, numbers, symbols (punctuation aside)
f   share of function words (the, of, you, …), nearly half of any English text
s   1 where the answer ends as a sentence does, else 0

The lists are in `words.txt`, to be read and disputed. Everything is a rate, taken as if ten words of average
English stood before the answer, so neither length nor silence pays; a word counts as good once, so repeating
it does not pay; a bare list of good words falls short of f.
"""

import math
import re
from pathlib import Path

import numpy as np

from jaxtrain.runtime.errors import UserError

_PARTS = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split("# ")[1:]
# of each part the first line says what it is
GOOD, BAD, FUNCTION, COMMON = (frozenset(part.partition("\n")[2].split()) for part in _PARTS)
KNOWN = GOOD | BAD | FUNCTION | COMMON
FUNCTION_SHARE = 0.3
WINDOW = 10  # words: how far back a repetition is looked for
AVERAGE = {"good": 0.15, "bad": 0.05, "repeated": 0.3, "unknown": 2.5, "function": 4.5}
"""Counts in ten words of average English, that of instruction answers: what every answer starts from."""
DESCRIPTION = (
    "Simulated raters prefer warm, plain, varied English in sentences: "
    "2 (1 - exp(-distinct good words per ten words)) - 2 (1 - exp(-distinct bad words per ten words)) "
    "- 4 x share of words repeated within ten words - 2 x share of tokens that are no common English word "
    f"- 4 x what the share of function words lacks of {FUNCTION_SHARE:g} "
    "+ 0.25 if the answer ends as a sentence; rates are taken over the answer "
    "and ten words of average English before it. "
    f"Lists: {len(GOOD)} good, {len(BAD)} bad, {len(FUNCTION)} function and {len(COMMON)} other common words."
)
TOKENS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[^\s.,;:!?'\"()-]")


def utility(answer: str) -> float:
    """What the simulated raters think of an answer before noise, about -4 to 2; higher is better.

    Instruction answers cut to 40 words: mean -0.45, standard deviation 0.58.
    """
    text = answer.translate(str.maketrans("’“”–—…", '\'""--.')).lower()
    tokens = TOKENS.findall(text)
    words = [token for token in tokens if token[0].isalpha()]
    count = {
        "good": len(GOOD.intersection(words)),
        "bad": len(BAD.intersection(words)),
        "repeated": sum(
            word in words[max(0, at - WINDOW) : at] for at, word in enumerate(words) if word not in FUNCTION
        ),
        "unknown": sum(not _is_known(token) for token in tokens),
        "function": sum(word in FUNCTION for word in words),
    }
    total = {name: len(words) + 10 for name in count} | {"unknown": len(tokens) + 10}
    rate = {name: (count[name] + AVERAGE[name]) / total[name] for name in count}
    return (
        2 * (1 - math.exp(-10 * rate["good"]))
        - 2 * (1 - math.exp(-10 * rate["bad"]))
        - 4 * rate["repeated"]
        - 2 * rate["unknown"]
        - 4 * max(0.0, FUNCTION_SHARE - rate["function"])
        + 0.25 * text.rstrip(" \n\"')").endswith((".", "!", "?"))
    )


def _is_known(token: str) -> bool:
    """A common word, or a regular form of one (s, es, 's, d, ed, ing, ly, er)."""
    stems = (token.removesuffix(ending) for ending in ("s", "es", "'s", "d", "ed", "ing", "ly", "er"))
    return token in KNOWN or any(stem in KNOWN for stem in stems)


def simulated_ranks(
    utilities: np.ndarray, noise: float, rng: np.random.Generator, tie: float = 0.0
) -> np.ndarray:
    """One simulated rater's ranks of K answers: 1 = best, equal = tie, no rank left out (1, 2, 2, 3).

    utilities: [K]. noise: scale of the Gumbel noise on each utility, so that orders follow Plackett-Luce
    (Yellott 1977) with worths exp(utility / noise). tie: an answer whose noisy utility is less than this
    below the best of its group joins the group; for two answers, a difference under `tie` is a tie.
    """
    if not (noise > 0 and tie >= 0):
        raise UserError(f"simulated raters need noise > 0 and tie >= 0, not noise = {noise} and tie = {tie}")
    utilities = np.asarray(utilities, np.float64)
    noisy = utilities + noise * rng.gumbel(size=utilities.shape)
    ranks = np.zeros(len(noisy), np.int64)
    best, rank = math.inf, 0
    for at in np.argsort(-noisy, kind="stable"):
        if rank == 0 or best - noisy[at] >= tie:
            best, rank = noisy[at], rank + 1
        ranks[at] = rank
    return ranks
