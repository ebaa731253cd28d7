"""What is kept of a refused step: its batch, what it is made of, and the numbers it was refused for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrain.runtime.progress import say
from jaxtrain.train.guard import Limits

FOLDER = "incidents"
MOST = 64
"""Batches kept of a run; each is as large as a batch."""


class Incidents:
    """Writes `incidents/batch-<index>/`: `incident.json`, and `process-<p>.npz`, the rows of each process.

    records: what the batch of an index was made of, any JSON value; kept where the feed can say it.
    """

    def __init__(self, folder: Path, records: Callable[[int], Any] | None = None):
        self.folder = folder / FOLDER
        self._records = records

    def save(
        self, step: int, index: int, batch: dict[str, np.ndarray], metrics: dict[str, float], held: Limits
    ) -> Path | None:
        """The folder of the batch; None where there are `MOST` already."""
        folder = self.folder / f"batch-{index:08d}"
        if not folder.exists() and self.folder.exists() and len(list(self.folder.iterdir())) >= MOST:
            say(f"batch {index} is not kept: {self.folder} has {MOST} already")
            return None
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / f"process-{jax.process_index()}.npz", **batch)
        if jax.process_index() == 0:
            held = jax.device_get(held)
            told = {
                "step": step,
                "batch": index,
                **{
                    name: {
                        "value": _number(metrics[name]),
                        "window_mean": _number(held.mean[i]),
                        "window_sigma": _number(held.sigma[i]),
                        "limit": _number(held.limit[i]),
                    }
                    for i, name in enumerate(("loss", "grad_norm"))
                },
                "targets": _number(metrics["targets"]),
                "refused_in_a_row": int(metrics["refused_in_a_row"]),
                "records": self._records(index) if self._records else None,
            }
            (folder / "incident.json").write_text(json.dumps(told, indent=2, allow_nan=False) + "\n")
        return folder


def _number(value: Any) -> float | str:
    """JSON has no word for nan and infinity."""
    return float(value) if np.isfinite(value) else str(float(value))
