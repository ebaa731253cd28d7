"""Muon for weights sharded in any way: momentum, orthogonalised by five Newton-Schulz steps.

Jordan 2024 (github.com/KellerJordan/Muon); the factor 0.2 · sqrt(max(rows, columns)), which gives updates
the root mean square of AdamW's, is of Liu et al. 2025 (arXiv 2502.16982). optax's rule does the work on each
matrix; here is what it lacks: shardings. It runs under `auto_axes`, where XLA lays out the products.

Cost of a matrix [m, n], m <= n, a step: 5 · (4 m² n + 2 m³) FLOPs beside the 6 · m · n of each token, and
an exchange of its momentum where it is sharded. State: one moment of a matrix instead of AdamW's two.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

Axes = tuple[tuple[int, ...], tuple[int, ...]]
"""The axes of a weight that its input runs over, and those of its output; all others count matrices."""
AxesOf = Callable[[tuple[Any, ...], Any], Axes | None]


def scale_by_sharded_muon(axes_of: AxesOf, momentum: float) -> optax.GradientTransformation:
    """Nesterov momentum, orthogonalised. axes_of(path, weight): its input and its output axes."""

    def rule(updates: Any) -> optax.GradientTransformation:
        dimensions = jax.tree_util.tree_map_with_path(
            lambda path, leaf: MuonDimensionNumbers(*_known(axes_of(path, leaf))), updates
        )
        return scale_by_muon(
            beta=momentum, weight_dimension_numbers=lambda _: dimensions
        )  # a module is callable

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        shardings = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, (updates, state))
        orthogonal, state = jax.sharding.auto_axes(
            lambda updates, state: rule(updates).update(updates, state), out_sharding=shardings
        )(updates, state)
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf * _scale(leaf, _known(axes_of(path, leaf))), orthogonal
        ), state

    return optax.GradientTransformation(lambda model: rule(model).init(model), update)


def _known(axes: Axes | None) -> Axes:
    assert axes is not None, "the partition gives Muon only what has axes"
    return axes


def _scale(leaf: jax.Array, axes: Axes) -> float:
    rows, columns = (math.prod(leaf.shape[axis] for axis in group) for group in axes)
    return 0.2 * math.sqrt(max(rows, columns))
