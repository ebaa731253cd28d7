"""The delta rule in chunks, against its definition, token by token."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.model.gated_delta import CHUNK, delta_rule


def definition(q, k, v, share, fade, segments):
    """What each token reads [T, V], and S at the end, of one row and head."""
    state, read = np.zeros((q.shape[1], v.shape[1])), []
    for t in range(len(q)):
        if t and segments[t] != segments[t - 1]:
            state = np.zeros_like(state)
        state = state * np.exp(fade[t])
        state = state + np.outer(k[t], share[t] * (v[t] - state.T @ k[t]))
        read.append(state.T @ q[t])
    return np.array(read), state


def test_chunks_read_what_the_definition_reads_and_a_document_its_own():
    """Two documents a row, the second over a chunk's end; behind them a token that changes nothing."""
    rng, B, T, N, H, V = np.random.default_rng(0), 2, CHUNK + 20, 3, 4, 5
    q, k, v = (rng.standard_normal((B, T, N, width)) for width in (H, H, V))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    share, fade = rng.random((B, T, N)), -0.3 * rng.random((B, T, N))
    share[:, -1], fade[:, -1] = 0, 0
    segments = np.array([[1] * first + [2] * (T - first) for first in (30, 70)])
    given = (*(x.astype(np.float32) for x in (q, k, v, share, fade)), segments)
    read, state = jax.jit(delta_rule)(given, jnp.zeros((B, N, H, V)))
    for b in range(B):
        for n in range(N):
            one = (x[b, :, n] for x in (q, k, v, share, fade))
            expected, end = definition(*one, segments[b])
            np.testing.assert_allclose(read[b, :, n], expected, atol=2e-5)
            np.testing.assert_allclose(state[b, n], end, atol=2e-5)


def test_what_is_read_in_parts_is_what_is_read_at_once():
    rng, T = np.random.default_rng(1), 9
    shapes = [(1, T, 2, 4), (1, T, 2, 4), (1, T, 2, 3), (1, T, 2), (1, T, 2)]
    q, k, v, share, fade = (rng.random(shape).astype(np.float32) for shape in shapes)
    given = (q, k, v, share, -fade, np.ones((1, T), np.int32))
    whole, end = delta_rule(given, jnp.zeros((1, 2, 4, 3)))
    state, parts = jnp.zeros((1, 2, 4, 3)), []
    for start, stop in ((0, 4), (4, 5), (5, T)):
        part, state = delta_rule(tuple(x[:, start:stop] for x in given), state)
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
    np.testing.assert_allclose(state, end, atol=1e-5)
