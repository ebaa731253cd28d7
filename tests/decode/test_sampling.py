"""Filters and penalties against float64 numpy that sorts, one row's settings beside another's."""

import jax
import numpy as np
import pytest

from jaxtrain.decode.sampling import Sampling, Settings, choose
from jaxtrain.runtime.errors import UserError

V = 50
SETTINGS = [
    Settings(temperature=0),
    Settings(temperature=0.7, top_p=0.8),
    Settings(temperature=1.3, top_k=5),
    Settings(min_p=0.2),
    Settings(repetition_penalty=1.8),
    Settings(temperature=0.7, top_k=20, top_p=0.9, min_p=0.05, repetition_penalty=0.6),
    Settings(top_k=1),
    Settings(),
]
LOGITS = np.random.default_rng(3).normal(0, 3, V).astype(np.float32)
SEEN = [4, 9, 9, 30]


@pytest.fixture(autouse=True)
def one_device(make_mesh):
    with jax.set_mesh(make_mesh(fsdp=1)):
        yield


def expected(settings: Settings) -> np.ndarray:
    """The distribution that a row is sampled from, filters one after the other as transformers has them."""
    x = LOGITS.astype(np.float64)
    seen = np.isin(np.arange(V), SEEN)
    penalty = settings.repetition_penalty
    x = np.where(seen, np.where(x > 0, x / penalty, x * penalty), x) / (settings.temperature or 1)
    if settings.top_k:
        x = np.where(x >= np.sort(x)[-settings.top_k], x, -np.inf)
    if settings.top_p < 1:
        order = np.argsort(-x)
        share = softmax(x)[order]
        x[order[np.cumsum(share) - share >= settings.top_p]] = -np.inf  # what comes before is enough
    if settings.min_p:
        x = np.where(softmax(x) >= settings.min_p * softmax(x).max(), x, -np.inf)
    return softmax(x)


def softmax(x: np.ndarray) -> np.ndarray:
    found = np.exp(x - x.max())
    return found / found.sum()


def draw(settings: list[Settings], seed: int = 0):
    rows = len(settings)
    tokens = np.zeros((rows, 16), np.int32)
    tokens[:, :4], tokens[:, 4:] = SEEN, 49  # behind the used slots stands what must not count
    keys = jax.vmap(jax.random.key)(np.arange(rows) + seed)
    used = np.full((rows,), 4, np.int32)
    logits = np.tile(LOGITS, (rows, 1))
    return jax.device_get(choose(logits, Sampling.of(settings), keys, used, tokens, used))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_row_is_sampled_from_its_own_distribution(settings):
    """4,096 rows of one setting, alternating with others: their frequencies, and each one's probability."""
    rows = 8192
    mixed = [settings if i % 2 else SETTINGS[i // 2 % len(SETTINGS)] for i in range(rows)]
    found = draw(mixed)
    tokens, logprobs, raw = (x[1::2] for x in (found.token_B, found.logprob_B, found.raw_logprob_B))
    share = expected(settings)
    np.testing.assert_allclose(logprobs, np.log(share[tokens]), atol=2e-5)
    np.testing.assert_allclose(raw, np.log(softmax(LOGITS.astype(np.float64))[tokens]), atol=2e-5)
    if settings.temperature == 0:
        assert (tokens == LOGITS.argmax()).all()
        return
    counts = np.bincount(tokens, minlength=V) / len(tokens)
    sigma = np.sqrt(share * (1 - share) / len(tokens))
    assert (np.abs(counts - share) < 5 * sigma + 2 / len(tokens)).all()
    assert (counts[share == 0] == 0).all()


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"min_p": float("nan")}, {"top_k": -1}],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Settings(**wrong)
