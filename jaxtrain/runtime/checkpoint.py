"""Checkpoints through Orbax: saved while training goes on, restored onto any mesh.

A checkpoint of step n holds two trees: `model`, which later stages load alone, and `training`, the rest.
"""

from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError


class Checkpoints:
    """The checkpoints of one training run, the latest `keep` of them."""

    def __init__(self, folder: Path, keep: int = 2):
        policy = ocp.training.preservation_policies.LatestN(keep)
        self._orbax = ocp.training.Checkpointer(folder.absolute(), preservation_policy=policy)
        self._saving: Any = None

    @property
    def latest(self) -> int | None:
        """The newest complete step."""
        newest = self._orbax.latest
        return None if newest is None else newest.step

    def save(self, step: int, model: Any, training: Any) -> None:
        """Start writing step `step` in the background; an error of the save before is raised here."""
        self.wait()
        self._saving = self._orbax.save_checkpointables_async(
            step, {"model": model, "training": training}, force=True
        )

    def restore(self, model: Any, training: Any) -> tuple[int, Any, Any]:
        """The newest step, onto the shardings of the abstract trees given."""
        step = self.latest
        assert step is not None, "restore is asked for only where a checkpoint stands"
        loaded = self._orbax.load_checkpointables(step, {"model": model, "training": training})
        return step, loaded["model"], loaded["training"]

    def wait(self) -> None:
        if self._saving is not None:
            self._saving.result()
            self._saving = None

    def close(self) -> None:
        self.wait()
        self._orbax.close()


def load_model(folder: Path, init: Any) -> Any:
    """The newest `model` tree under `folder`, on the mesh that is set; `init()` says its shape."""
    if not folder.is_dir():
        raise UserError(f"no checkpoint folder {folder}; is its stage finished?")
    with ocp.training.Checkpointer(folder.absolute()) as orbax:
        if orbax.latest is None:
            raise UserError(f"no complete checkpoint in {folder}")
        abstract = meshes.abstract(init, jax.sharding.get_mesh())
        return orbax.load_checkpointables(orbax.latest.step, {"model": abstract})["model"]
