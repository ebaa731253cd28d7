"""What is asked of a model, and what has come of it."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from jaxtrain.decode.sampling import Settings
from jaxtrain.runtime.errors import UserError

Reason = Literal["", "stop", "length", "cancelled", "error"]
Likeliest = dict[int, float]
"""Tokens and their log p, the likeliest first."""


class Full(UserError):
    """No more requests are taken now."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of the model."""

    prompt: Sequence[int]
    """Ids, at least one."""
    max_new: int
    """Tokens of the answer at most."""
    settings: Settings = field(default_factory=Settings)
    seed: int = 0
    """The same request with the same seed has the same answer."""
    stop: tuple[int, ...] = ()
    """Ids that end the answer; the one that came is its last token."""
    is_over: Callable[[Sequence[int]], bool] | None = None
    """Asked with the ids so far after every token (`ends_with(decode, texts)`): true ends the answer."""
    allowed: Callable[[Sequence[int]], bytes] | None = None
    """Asked with the ids so far before every token: a bit for each that may come, lowest of a byte first."""
    likeliest: int = 0
    """How many of the likeliest tokens are told beside every id; at most `scoring.MOST`."""
    score_prompt: bool = False
    """The prompt's own ids are told as the answer's are; it is then read whole, whoever read it before."""


@dataclass(eq=False)
class Answer:
    """What has come of a request so far. Ids are kept as they were sampled; nothing is tokenized again."""

    request: Request
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """log p of each id under the distribution that it was sampled from."""
    raw_logprobs: list[float] = field(default_factory=list)
    """log p of each id under the model's own distribution."""
    likeliest: list[Likeliest] = field(default_factory=list)
    """Beside each id under the model's own distribution; empty unless they were asked for."""
    prompt_logprobs: list[float] = field(default_factory=list)
    """log p of each id of the prompt but the first, under the model's own distribution, if asked for."""
    prompt_likeliest: list[Likeliest] = field(default_factory=list)
    reason: Reason = ""
    """Why it ended; empty while it goes on."""
    submitted: float = 0.0
    first_token: float = 0.0
    latest_token: float = 0.0
    """Seconds of `time.monotonic`."""
    listen: Callable[["Answer"], None] | None = None


def told(likeliest: list[np.ndarray], count: int) -> list[Likeliest]:
    """Of ids and their log p, [tokens, X] each, the first `count`; nothing where that is 0."""
    pairs = zip(*(part[:, :count].tolist() for part in likeliest), strict=True)
    return [dict(zip(ids, logprobs, strict=True)) for ids, logprobs in pairs] if count else []


def ends_with(
    decode: Callable[[Sequence[int]], str], texts: Sequence[str]
) -> Callable[[Sequence[int]], bool] | None:
    """For `Request.is_over`: whether the decoded answer contains one of `texts`."""
    if not texts:
        return None
    longest = max(len(text.encode()) for text in texts)

    def is_over(ids: Sequence[int]) -> bool:
        # a token is a byte at least; the first may be half a character
        tail = decode(ids[-longest - 8 :])
        return any(text in tail for text in texts)

    return is_over


class Durations:
    """Seconds that something took: all of them summed, and the distribution of the latest."""

    def __init__(self, latest: int = 4096):
        self.total, self.count = 0.0, 0
        self._latest: deque[float] = deque(maxlen=latest)

    def add(self, seconds: float) -> None:
        self.total, self.count = self.total + seconds, self.count + 1
        self._latest.append(seconds)

    def quantile(self, share: float) -> float:
        """NaN where there is none yet, as in Prometheus."""
        return float(np.quantile(list(self._latest) or [np.nan], share))
