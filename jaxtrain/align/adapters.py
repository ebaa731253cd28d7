"""Full training or LoRA, the same to every stage: what learns is split off, and losses see whole modules.

    learner = Learner.of(config, folder, make, load)
    step = make_step(learner.loss(loss), optimizer)
    state, _ = step(state, batch, learner.frozen)
    learner.whole(state.model)                      # to sample from, to score with, to measure

Under LoRA adapters stand in the place of a module's transformers; its heads learn as they are. The
transformer before it learned, which rewards and losses are held against, is `learner.base`: no second copy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxtrain.model import lora
from jaxtrain.model.layers import named_key
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say
from jaxtrain.train.step import Batch, Loss
from jaxtrain.weights import folder as store

Frozen = dict[str, Transformer]
"""Transformers with places for adapters, by their attribute of the module; `""`: the module is one itself."""


class Config(Protocol):
    """What the configs of all stages here have."""

    @property
    def model(self) -> str: ...

    @property
    def lora(self) -> LoRAConfig: ...

    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Learner:
    """What learns, and what stays."""

    init: Callable[[jax.Array], Any]
    """What learns, by a key: of use for its shapes."""
    first: Callable[[], Any]
    """What learns, at step 0; a new copy at every call, for a step gives its state's memory away."""
    base: Transformer | None = None
    """The transformer that stays; None: all weights learn."""
    frozen: Frozen | None = None
    """What the step is given beside its state; in no checkpoint."""

    @staticmethod
    def of(
        config: Config, folder: Path, make: Callable[[jax.Array], Any], load: Callable[[str], Any]
    ) -> "Learner":
        """make: the module with fresh weights, by a key. load: the module of step 0, weights in a dtype.

        With adapters `folder` gets adapter.json, by which others find the weights that they stand on.
        Errors: UserError where the adapters have dropout.
        """
        if not config.lora.rank:
            return Learner(make, lambda: load("float32"))
        if config.lora.dropout:
            raise UserError(
                f"lora.dropout is {config.lora.dropout}; what is learned here are differences of scores and "
                "log-probabilities, which it would blur: leave it 0"
            )
        store.write_adapter(folder, config.model, config.lora)
        key = jax.random.key(config.seed)
        module = load(store.read_config(config.model).dtype)
        learned, frozen = split(module, config.lora, key)
        total, learning = (sum(x.size for x in jax.tree.leaves(tree)) for tree in (module, learned))
        say(f"align: adapters and heads of {learning:,} weights beside {total:,} that stay")
        return Learner(
            init=lambda key: split(make(key), config.lora, key)[0],
            first=lambda: jax.tree.map(jnp.copy, learned),
            base=module if isinstance(module, Transformer) else module.transformer,
            frozen=frozen,
        )

    def whole(self, learned: Any) -> Any:
        """The module that what learns makes with what stays."""
        return learned if self.frozen is None else whole(learned, self.frozen)

    def loss(self, loss: Loss) -> Loss:
        """A loss of the whole module and a batch, as a function of what learns: for `make_step`."""
        if self.frozen is None:
            return loss

        def of_learned(learned: Any, batch: Batch, frozen: Frozen, step: jax.Array):
            return loss(whole(learned, frozen), batch)

        return of_learned


def split(module: Any, config: LoRAConfig, key: jax.Array) -> tuple[Any, Frozen]:
    """The module with new adapters in the place of its transformers, and these, their arrays not copied."""
    if isinstance(module, Transformer):
        adapted = lora.adapt(module, config, key)
        return lora.take(adapted), {"": adapted}
    learned, frozen = jax.tree.map(lambda x: x, module), {}
    for name, part in vars(module).items():
        if isinstance(part, Transformer):
            frozen[name] = lora.adapt(part, config, named_key(key, name))
            setattr(learned, name, lora.take(frozen[name]))
    return learned, frozen


def whole(learned: Any, frozen: Frozen) -> Any:
    """The module again: `whole(*split(module, ...))` computes what `module` does."""
    if "" in frozen:
        return lora.put(frozen[""], learned)
    module = jax.tree.map(lambda x: x, learned)
    for name, adapted in frozen.items():
        setattr(module, name, lora.put(adapted, getattr(module, name)))
    return module
