"""Running out of device memory is answered with what took it and what to change."""

import jax
import jax.numpy as jnp
import pytest

from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.errors import UserError
from jaxtrain.train import loop
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import initializer


def test_a_step_that_needs_too_much_says_how_much(config, make_mesh, make_batch, tmp_path):
    """A loss that sorts 64 TiB (and what the sort needs beside it): the allocation fails, for real."""

    def greedy(model, batch):
        total, weight = token_loss(model, batch)
        endless = jnp.broadcast_to(total, (1 << 24, 1 << 20)) * jnp.arange(1 << 20)
        return jnp.sort(endless, axis=0)[0, 0], weight

    optimizer = optimizers.make(OptimizerConfig(), steps=2)
    told = pytest.raises(
        UserError,
        match=r"out of memory: the step needs .*e\+05 GiB a device: .* GiB for weights, optimizer and batch, "
        r".*e\+05 GiB for activations and gradients; microbatches 1 -> 2 halves",
    )
    with told, jax.set_mesh(make_mesh(fsdp=1)):
        loop.train(
            tmp_path,
            loop.Schedule(steps=2, evaluate_every=2, checkpoint_every=2),
            init=initializer(lambda key: Transformer(config, key), optimizer, seed=0),
            loss=greedy,
            optimizer=optimizer,
            batches=lambda start, stop: map(make_batch, range(start, stop)),
            evaluate=lambda model, step: {},
        )
