"""How sure an observed share is."""

import math

Z95 = 1.959963984540054  # standard normal, 97.5 %


def wilson_interval(successes: float, trials: float, z: float = Z95) -> tuple[float, float]:
    """The share's confidence interval (95 % by default), good for few trials and for shares near 0 or 1.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22:209. Successes may be halves (ties),
    trials an effective number. Without trials: (0, 1).
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    if trials == 0:
        return 0.0, 1.0
    share, grown = successes / trials, 1 + z * z / trials
    center = (share + z * z / (2 * trials)) / grown
    half = z / grown * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, center - half), min(1.0, center + half)
