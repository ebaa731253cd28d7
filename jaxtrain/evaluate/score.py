"""From log-likelihoods to numbers that may be quoted: pure functions, no model.

A share of right answers has its interval from `tasks.interval`; any other mean its standard error here.
"""

import lzma
import math
from collections.abc import Sequence

import numpy as np


def choice_accuracy(
    loglikelihoods: Sequence[Sequence[float]],
    answers: Sequence[int],
    lengths: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """1 where the right choice is the likeliest, 0 elsewhere, 1/n where it is one of n; float64 [items].

    loglikelihoods: nats of each choice's text after its context, a list an item (items may have 3 or 5
    choices). lengths: bytes of each choice; where given, likelihoods are compared per byte, which removes the
    advantage of short choices (lm-eval's `acc_norm`, there by characters). Mean of the result = accuracy.
    """
    grades = np.zeros(len(answers))
    for item, (values, answer) in enumerate(zip(loglikelihoods, answers, strict=True)):
        scores = np.asarray(values, np.float64)
        if np.isnan(scores).any():
            raise ValueError(f"item {item}: a log-likelihood is nan; the model is broken there")
        if lengths is not None:
            scores = scores / np.maximum(np.asarray(lengths[item], np.float64), 1)
        best = scores == scores.max()
        grades[item] = best[answer] / best.sum()
    return grades


def standard_error(values: Sequence[float] | np.ndarray) -> float:
    """Of the mean of independent values: sample standard deviation over √n; nan for fewer than two."""
    values = np.asarray(values, np.float64)
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def xz_bits_per_byte(data: bytes) -> float:
    """What xz needs for the same text at its strongest: the compressor that a language model should beat."""
    if not data:
        raise ValueError("bits per byte of no text; give at least one byte")
    return 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) / len(data)


def centred(value: float, chance: float) -> float:
    """A score with chance at 0 and a perfect one at 1 (the scale of DCLM's CORE: Li et al. 2024)."""
    return (value - chance) / (1 - chance)
