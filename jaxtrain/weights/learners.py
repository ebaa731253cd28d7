"""Full training or LoRA of any module around transformers, for every stage that begins with a model's folder.

    learner = learner_of(config, folder, model)
    trained = train(run, learner, loss, feed, evaluate)

Under LoRA adapters stand in the place of a module's transformers; its heads learn as they are. The
transformers before they learned stay in `learner.frozen`: `base_of(learner)` is what rewards and losses are
held against, without a second copy.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxtrain.model import lora
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import named_key, replaced
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.quantized import quantize
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.learner import Learner
from jaxtrain.weights.folder import open, write_adapter

Frozen = dict[str, Transformer]
"""Transformers with places for adapters, by their attribute of the module; `""`: the module is one itself."""


class Config(Protocol):
    """What the configs of stages have that begin with a model."""

    @property
    def model(self) -> str: ...

    @property
    def lora(self) -> LoRAConfig: ...

    @property
    def train(self) -> TrainConfig: ...


def runs_as(config: TrainConfig, model: ModelConfig) -> ModelConfig:
    """The model's config with the dtype and the remat that a training asks for."""
    dtype = model.dtype if config.dtype == "model" else config.dtype
    remat = model.remat if config.remat == "model" else config.remat
    return dataclasses.replace(model, dtype=dtype, remat=remat)


def learner_of(
    config: Config,
    folder: Path,
    model: ModelConfig,
    make: Callable[[ModelConfig, jax.Array], Any] = Transformer,
    around: Callable[[Transformer], Any] = lambda transformer: transformer,
) -> Learner:
    """Of a model as it runs: its transformer, or a module around it.

    make: the module with fresh weights. around: that of step 0, around the transformer of `config.model`.
    With adapters `folder` gets adapter.json, by which others find the weights that they stand on.
    """
    source, fresh = open(config.model), partial(make, model)
    if not config.lora.rank:
        return Learner(fresh, lambda: around(source.load(model, "float32")))
    if jax.process_index() == 0:
        write_adapter(folder, config.model, config.lora)
    key = jax.random.key(config.train.seed)
    module = around(source.load(model, model.dtype, config.lora.base_weights))
    learned, frozen = split(module, config.lora, key)
    learning = sum(x.size for x in jax.tree.leaves(learned))
    size = sum(x.nbytes for x in jax.tree.leaves(module)) / 1e6
    say(f"adapters and heads of {learning:,} weights learn; those that stay are {size:,.0f} MB")
    return Learner(
        init=lambda key: split(fresh(key), config.lora, key)[0],
        first=lambda: jax.tree.map(jnp.copy, learned),
        frozen=frozen,
        assemble=assembled,
    )


def base_of(learner: Learner) -> Transformer | None:
    """The transformer that adapters stand on; None where all weights learn."""
    if learner.frozen is None:
        return None
    return next(learner.frozen[name] for name in ("", "transformer") if name in learner.frozen)


def without_dropout(config: LoRAConfig) -> None:
    """UserError where adapters have dropout."""
    if config.dropout:
        raise UserError(
            f"lora.dropout is {config.dropout}; what is learned here are differences of scores and "
            "log-probabilities, which it would blur: leave it 0"
        )


def split(module: Any, config: LoRAConfig, key: jax.Array) -> tuple[Any, Frozen]:
    """The module with new adapters in the place of its transformers, and these, their arrays not copied."""
    if isinstance(module, Transformer):
        adapted = jax.jit(lora.adapt, static_argnums=1)(module, config, key)
        adapted = quantize(adapted, config.base_weights)
        return lora.take(adapted), {"": adapted}
    frozen = {
        name: quantize(lora.adapt(part, config, named_key(key, name)), config.base_weights)
        for name, part in vars(module).items()
        if isinstance(part, Transformer)
    }
    return replaced(module, **{name: lora.take(adapted) for name, adapted in frozen.items()}), frozen


def assembled(learned: Any, frozen: Frozen, dropout_key: jax.Array | None = None) -> Any:
    """The module again: `assembled(*split(module, …))` computes what `module` does."""
    if "" in frozen:
        return lora.put(frozen[""], learned, dropout_key)
    parts = {name: lora.put(adapted, getattr(learned, name), dropout_key) for name, adapted in frozen.items()}
    return replaced(learned, **parts)
