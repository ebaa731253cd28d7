"""Which steps are accepted, and that a refused one leaves no trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.guard import Guard, judge, new_guard
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import initializer
from jaxtrain.train.step import make_step

judged = jax.jit(judge)


def see(guard: Guard, loss: float, norm: float = 1.0) -> tuple[bool, Guard]:
    accepted, guard = judged(guard, jnp.float32(loss), jnp.float32(norm))
    return bool(accepted), guard


def after(losses: list[float]) -> Guard:
    """The guard after steps that it accepted."""
    guard = new_guard()
    for loss in losses:
        accepted, guard = see(guard, loss)
        assert accepted
    return guard


def test_the_first_step_may_be_anything_finite():
    assert see(new_guard(), 1e30, 1e30)[0]
    assert not see(new_guard(), np.nan)[0] and not see(new_guard(), 1.0, np.inf)[0]


def test_early_steps_may_reach_ten_times_the_largest():
    guard = after([1.0, 3.0, 2.0])
    assert see(guard, 29.9)[0] and not see(guard, 30.1)[0]
    assert see(guard, 1.0, 9.9)[0] and not see(guard, 1.0, 10.1)[0]
    assert see(after([3.0] * 31), 29.9)[0] and not see(after([3.0] * 32), 29.9)[0]


def test_later_steps_may_reach_six_sigmas():
    losses = [2.0 + 0.1 * (-1) ** i for i in range(40)]  # mean 2, sigma 0.1
    guard = after(losses)
    assert see(guard, 2.59)[0] and not see(guard, 2.61)[0]
    assert see(guard, 0.1)[0]  # one-sided: a loss may fall as it likes
    flat = after([2.0] * 40)  # sigma at least 1 % of the mean
    assert see(flat, 2.11)[0] and not see(flat, 2.13)[0]
    assert see(flat, 2.0, 1.05)[0] and not see(flat, 2.0, 1.07)[0]


def test_the_window_is_the_last_128_accepted():
    guard = after([4.0 - 0.01 * i for i in range(300)])  # the last 128 lie in 1.01 .. 2.28
    assert sorted(np.asarray(guard.window)[:, 0].round(2)) == pytest.approx(
        [round(1.01 + 0.01 * i, 2) for i in range(128)]
    )
    last = 4.0 - 0.01 * np.arange(172, 300)
    limit = last.mean() + 6 * last.std()
    assert see(guard, limit - 0.01)[0] and not see(guard, limit + 0.01)[0]


def test_refused_values_do_not_enter_the_window():
    guard = after([2.0] * 40)
    window = np.asarray(guard.window)
    for count, (loss, norm) in enumerate([(np.nan, 1.0), (2.0, np.inf), (9.0, 1.0)], 1):
        accepted, guard = see(guard, loss, norm)
        assert not accepted and guard.refused_in_a_row == count and guard.accepted == 40
        np.testing.assert_array_equal(guard.window, window)
    accepted, guard = see(guard, 2.0)
    assert accepted and guard.refused_in_a_row == 0 and guard.accepted == 41


def poisoned(model, batch):
    """token_loss times the batch's `factor`."""
    total, weight = token_loss(model, batch)
    return total * jnp.max(batch["factor"]), weight


def test_a_refused_step_leaves_weights_and_optimizer_alone(config, make_mesh, make_batch):
    """Steps of batches 1, bad, 2 end where steps of 1, 2 do, bit for bit, on fsdp 4 x tensor 2."""
    mesh = make_mesh(fsdp=4, tensor=2)
    optimizer = optimizers.make(OptimizerConfig(lr=1e-2, warmup_steps=0), steps=10)
    step = make_step(poisoned, optimizer)
    with jax.set_mesh(mesh):
        init = jax.jit(initializer(lambda key: Transformer(config, key), optimizer, seed=0))

        def run(factors):
            state, log = init(), []
            for seed, factor in factors:
                batch = make_batch(seed) | {"factor": np.full((8, 32), factor, np.float32)}
                state, metrics = step(state, meshes.put_batch(batch, mesh))
                del metrics["limits"]
                log.append({name: float(value) for name, value in metrics.items()})
            return state, log

        clean, _ = run([(1, 1.0), (2, 1.0)])
        for bad in (np.nan, np.inf, 1e3):  # the last is finite, and a spike
            state, log = run([(1, 1.0), (3, bad), (3, bad), (2, 1.0)])
            assert [line["accepted"] for line in log] == [1, 0, 0, 1]
            assert [line["refused_in_a_row"] for line in log] == [0, 1, 2, 0]
            assert int(state.step) == 4
            for found, wanted in zip(
                jax.tree.leaves((state.model, state.optimizer, state.guard)),
                jax.tree.leaves((clean.model, clean.optimizer, clean.guard)),
                strict=True,
            ):
                np.testing.assert_array_equal(found, wanted)
                assert np.isfinite(found).all()
