"""Running out of device memory is answered with what took it and what to change."""

import jax.numpy as jnp
import pytest
from train_run import train_transformer

from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig


def test_a_step_that_needs_too_much_says_how_much(config, make_batch, tmp_path):
    """A loss that sorts 64 TiB (and what the sort needs beside it): the allocation fails, for real."""

    def greedy(model, batch):
        total, weight = token_loss(model, batch)
        endless = jnp.broadcast_to(total, (1 << 24, 1 << 20)) * jnp.arange(1 << 20)
        return jnp.sort(endless, axis=0)[0, 0], weight

    settings = TrainConfig(optimizer=OptimizerConfig(), mesh=MeshConfig(fsdp=8), steps=2)
    told = pytest.raises(
        UserError,
        match=r"out of memory: the step needs .*e\+05 GiB a device: .* GiB for weights, optimizer and batch, "
        r".*e\+05 GiB for activations and gradients; microbatches 1 -> 2 halves",
    )
    with told:
        train_transformer(
            tmp_path, settings, config, lambda start, stop: map(make_batch, range(start, stop)), loss=greedy
        )
