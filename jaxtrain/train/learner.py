"""What learns of a stage's module and what stays, behind one face: losses always see the whole module."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from jaxtrain.train.step import Batch, Loss


@dataclass(frozen=True)
class Learner:
    """All weights of a module, or some of them: adapters, a head.

    `step(state, batch, learner.frozen)` of `make_step(learner.loss(loss), …)` trains what learns;
    `learner.whole(state.model)` is the module to sample from, to score with, to evaluate.
    """

    init: Callable[[jax.Array], Any]
    """What learns with fresh weights, by a key."""
    first: Callable[[], Any] | None = None
    """What learns at step 0, a new copy at every call, for a step gives its state's memory away; None: `init`
    by the seed."""
    frozen: Any = None
    """Weights that the loss reads and that do not learn; in no checkpoint."""
    assemble: Callable[[Any, Any, jax.Array | None], Any] = lambda learned, frozen, key: learned
    """(what learns, `frozen`, key of dropout or None) to the module."""
    saved: Callable[[Any], Any] = lambda learned: learned
    """Of what learns, the weights that later stages load: a checkpoint's `model`."""
    rest: Callable[[Any], Any] = lambda learned: None
    """What else learns, kept with the state of the training."""
    restored: Callable[[Any, Any, Any], Any] = lambda like, saved, rest: saved
    """(shapes of what learns, saved, rest) to what learns."""

    def whole(self, learned: Any) -> Any:
        """The module that what learns makes with what stays."""
        return self.assemble(learned, self.frozen, None)

    def loss(self, loss: Loss) -> Loss:
        """A loss of the whole module and a batch, as a function of what learns: for `make_step`."""
        if self.frozen is None:
            return loss

        def of_learned(learned: Any, batch: Batch, frozen: Any, key: jax.Array) -> Any:
            return loss(self.assemble(learned, frozen, key), batch)

        return of_learned
