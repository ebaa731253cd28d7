"""NaN, Inf and x 1e9 in loss or gradient: with the guard nothing happens, without it the run is lost."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import initializer
from jaxtrain.train.step import make_step

STEPS = 310
ROWS, LENGTH = 4, 16
FACTORS = {"nan": np.nan, "inf": np.inf, "1e9": 1e9}


@partial(jax.custom_vjp, nondiff_argnums=())
def spoil_gradient(loss, factor):
    """The loss as it is, its gradient times `factor`."""
    return loss


spoil_gradient.defvjp(
    lambda loss, factor: (loss, factor), lambda factor, gradient: (gradient * factor, jnp.zeros_like(factor))
)


def spoilt(model, batch):
    """token_loss; the batch says by what the loss and its gradient are multiplied."""
    total, weight = token_loss(model, batch)
    total = total * jnp.max(batch["loss_factor"])
    return spoil_gradient(total, jnp.max(batch["gradient_factor"])), weight


class Trial:
    """A tiny model that learns to name the token before. One device, Adam without clipping."""

    def __init__(self, config, mesh):
        self.mesh = mesh
        self.settings = OptimizerConfig(lr=1e-2, warmup_steps=10, schedule="linear", clip_norm=1e9)
        self.optimizer = optimizers.make(self.settings, STEPS)
        self.init = lambda seed: initializer(lambda key: Transformer(config, key), self.optimizer, seed)
        self.step = make_step(spoilt, self.optimizer)
        self.unguarded = jax.jit(self._unguarded)

    def batch(self, step, seed, **factors):
        tokens = np.random.default_rng([seed, step]).integers(0, 64, (ROWS, LENGTH + 1)).astype(np.int32)
        batch = {
            "tokens": tokens[:, 1:],
            "targets": tokens[:, :-1],
            "loss_weights": np.ones((ROWS, LENGTH), np.float32),
            "segment_ids": np.ones((ROWS, LENGTH), np.int32),
            "positions": np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1)),
        }
        for name in ("loss_factor", "gradient_factor"):
            batch[name] = np.full((ROWS, LENGTH), factors.get(name, 1.0), np.float32)
        return meshes.put_batch(batch, self.mesh)

    def _unguarded(self, state, batch):
        """What optax's own example does."""
        model, optimizer = state
        (total, weight), gradient = jax.value_and_grad(spoilt, has_aux=True)(model, batch)
        gradient = jax.tree.map(lambda g: g / weight, gradient)
        updates, optimizer = self.optimizer.update(gradient, optimizer, model)
        return (optax.apply_updates(model, updates), optimizer), total / weight

    def guarded_run(self, state, start, stop=STEPS, seed=0):
        """The state after steps start + 1 … stop, and the mean loss of the last ten."""
        metrics = []
        for step in range(start + 1, stop + 1):
            state, found = self.step(state, self.batch(step, seed))
            metrics.append(found)
        return state, float(np.mean([line["loss"] for line in jax.device_get(metrics[-10:])]))


@pytest.fixture(scope="module")
def trial(config, make_mesh):
    mesh = make_mesh(fsdp=1)
    with jax.set_mesh(mesh):
        yield Trial(config, mesh)


@pytest.fixture(scope="module")
def clean(trial):
    """Final losses of three seeds, and of the first the states after 2 and 299 steps."""
    early, _ = trial.guarded_run(jax.jit(trial.init(0))(), 0, 2)
    late, _ = trial.guarded_run(copied(early), 2, 299)
    final = [trial.guarded_run(copied(late), 299)[1]]
    final += [trial.guarded_run(jax.jit(trial.init(seed))(), 0, seed=seed)[1] for seed in (1, 2)]
    assert max(final) < 1.0 < np.log(64), "it learns"
    return np.array(final), {3: early, 300: late}


def copied(state):
    """The step donates what it is given."""
    return jax.tree.map(jnp.copy, state)


def host(state):
    return jax.device_get(jax.tree.leaves((state.model, state.optimizer, state.guard.window)))


@pytest.fixture(scope="module")
def endings(trial, clean):
    """By step: the state behind the refused step, and where that run ends; the first test fills it."""
    return {}


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("where", ["loss_factor", "gradient_factor"])
@pytest.mark.parametrize("at", [3, 300])
def test_the_guard_keeps_the_poison_out(trial, clean, endings, at, where, factor):
    """Weights, optimizer and window are those of the step before, and the run ends where clean runs do."""
    final, before = clean
    state, metrics = trial.step(copied(before[at]), trial.batch(at, 0, **{where: FACTORS[factor]}))
    assert not metrics["accepted"]
    after = host(state)
    for a, b in zip(after, host(before[at]), strict=True):
        np.testing.assert_array_equal(a, b)
    if at not in endings:  # every kind of poison leaves this same state, so one run to the end stands for all
        endings[at] = after, trial.guarded_run(copied(state), at)[1]
    for a, b in zip(after, endings[at][0], strict=True):
        np.testing.assert_array_equal(a, b)
    spread = final.max() - final.min()
    assert final.min() - spread <= endings[at][1] <= final.max() + spread, (endings[at][1], final)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("where", ["loss_factor", "gradient_factor"])
@pytest.mark.parametrize("at", [3, 300])
def test_without_the_guard_the_same_poison_ruins_the_run(trial, clean, at, where, factor):
    """The same steps without judgement: weights are NaN, or Adam's second moment stops all learning.

    Of 1e9 ten steps before the end the loss does not tell, so small is the rate there; the moment does.
    """
    final, before = clean
    state, losses = (copied(before[at].model), copied(before[at].optimizer)), []
    for step in range(at, STEPS + 1 if factor == "1e9" else at + 11):
        factors = {where: FACTORS[factor]} if step == at else {}
        state, loss = trial.unguarded(state, trial.batch(step, 0, **factors))
        losses.append(loss)
    end = np.mean(jax.device_get(losses)[-10:])
    if factor == "1e9" and at == 300:
        moments = [optax.tree.get(of, "nu") for of in (before[at].optimizer, state[1])]
        known, ruined = (float(optax.tree.norm(nu)) for nu in moments)
        assert ruined > 1e12 * known
    elif factor == "1e9":
        assert end > final.max() + 3 * (final.max() - final.min()), (end, final)
    else:
        assert np.isnan(end) and all(
            np.isnan(leaf).any() for leaf in jax.tree.leaves(jax.device_get(state[0]))
        )
