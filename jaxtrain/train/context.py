"""What surrounds the steps of a run, the same for every stage that learns.

    def run(config):
        return produce(config, {"data": config.data}, partial(_train, config))

    with training(config.train, folder, write_about) as run:
        trained = train(run, learner, loss, feed, evaluate)

`produce` joins the processes of a run; `training` sets the mesh and opens, in this order: watchdog,
checkpoints, metrics and trackers, signals.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import jax

from jaxtrain import artifact
from jaxtrain.runtime import distributed
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.checkpoint import Checkpoints, last_step
from jaxtrain.runtime.compiled import keep_compiled
from jaxtrain.runtime.distributed import Wishes
from jaxtrain.runtime.metrics import MetricsLog
from jaxtrain.runtime.progress import live, say
from jaxtrain.runtime.signals import Stopped, StopSignals
from jaxtrain.runtime.trackers import open_trackers
from jaxtrain.runtime.watchdog import Watchdog
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.pace import Goodput


def produce(config: Any, inputs: Mapping[str, str | Path], write: Callable[[Path], artifact.Counts]) -> Path:
    """The finished artifact of a stage that trains, made by all processes of the run together.

    A killed run goes on in its folder (`artifact.produce`).
    """
    return artifact.produce(config, inputs, write, trained=last_step, others=distributed.join())


@contextmanager
def training(config: TrainConfig, folder: Path, about: Callable[[Path], None]) -> Iterator["Run"]:
    """A run in `folder`, on the mesh of `config`, which is set meanwhile.

    about: writes beside the checkpoints what a model's folder has; the first process calls it.
    """
    keep_compiled()
    mesh = meshes.make(config.mesh)
    if mesh.size > 1:
        sizes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
        say(f"mesh {sizes} on {jax.devices()[0].device_kind}")
    with ExitStack() as ends:
        ends.enter_context(jax.set_mesh(mesh))
        if jax.process_index() == 0:
            about(folder)
        yield Run(config, folder, ends)


class Run:
    """One process's part of a run."""

    def __init__(self, config: TrainConfig, folder: Path, ends: ExitStack):
        self.config, self.folder = config, folder
        self.watchdog = ends.enter_context(Watchdog(config.safety.watchdog, folder))
        self.goodput = Goodput()
        self.checkpoints = ends.enter_context(closing(Checkpoints(folder / "checkpoint", config.safety.keep)))
        step = self.checkpoints.latest or 0
        mirrors = open_trackers(config.trackers, folder)
        self.log = ends.enter_context(closing(MetricsLog(folder / "metrics.jsonl", step, mirrors)))
        self.goodput.carry(self.log.kept, self.log.lost_seconds)
        self.signals = ends.enter_context(StopSignals())
        self.foot = ends.enter_context(live("starting"))
        """Replaces the line at the foot of the terminal."""
        self._wishes = Wishes()
        self.learned: Any = None
        """What learns, as the last step left it: a source of rollouts samples from it."""
        self.told: list[dict[str, Any]] = []
        """Lines for metrics.jsonl that go with the step that follows."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return jax.process_index() == 0

    def asked_to_stop(self) -> bool:
        """Whether any process was."""
        return self._wishes.exchange(self.signals.asked is not None)[0]

    def write_told(self, step: int) -> None:
        """A restart at the checkpoint before `step` cuts these lines off: what they tell of is done again."""
        for line in self.told:
            self.log.write(step, line)
        self.told.clear()

    def stop(self, step: int, saved: bool) -> None:
        """Leave with exit status 75; the same command goes on."""
        self.checkpoints.wait()
        at = f"saved after step {step}" if saved else "the last checkpoint stands"
        say(f"{self.signals.asked or 'a signal to another process'}: {at}; the same command goes on")
        raise Stopped
