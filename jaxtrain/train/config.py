"""TrainConfig: what every stage that learns is told of its training, in its field `train`."""

from dataclasses import dataclass, field, replace
from typing import Literal, Self

from jaxtrain.fields import Adjustable, Operational
from jaxtrain.runtime.checkpoint import KeepConfig
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Decay, Positive, Share
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.trackers import Tracker
from jaxtrain.runtime.watchdog import WatchdogConfig


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Clip the global gradient norm, then one of four rules."""

    kind: Literal["adamw", "muon", "lion", "adafactor"] = "adamw"
    """adamw: Loshchilov and Hutter 2019. muon: orthogonalised momentum for the matrices of the blocks (Jordan
    2024; Liu et al. 2025, so that AdamW's learning rate and decay fit), AdamW for the rest. lion: Chen et al.
    2023; a tenth of AdamW's learning rate. adafactor: Shazeer and Stern 2018, second moments in rows and
    columns, for memory."""
    lr: Adjustable[Positive] = 3e-3
    """Peak learning rate."""
    rest_lr: Adjustable[float] = 0.0
    """muon: peak rate of what AdamW takes; 0: `lr`."""
    embedding_lr: Adjustable[float] = 0.0
    """Peak learning rate of the embedding, whose rows have a gradient only where their token is; 0: that of
    the weights beside it."""
    warmup_steps: int = 20
    """Steps of linear warmup from 0."""
    schedule: Adjustable[Literal["cosine", "linear", "constant", "stable_decay"]] = "cosine"
    """Decay from the peak after warmup. stable_decay: constant, then linear over the last `decay_share`."""
    decay_share: Adjustable[Share] = 0.2
    """stable_decay: share of all steps that decay."""
    final_lr_share: Adjustable[Share] = 0.1
    """Learning rate at the last step as a share of the peak."""
    beta1: Decay = 0.9
    """Decay of the mean of gradients."""
    beta2: Decay = 0.95
    """Decay of the mean of squared gradients."""
    eps: Positive = 1e-8
    """Added to the root of the mean of squared gradients."""
    momentum: Decay = 0.95
    """muon: decay of the mean of gradients that is orthogonalised."""
    weight_decay: float = 0.1
    """Decoupled; of matrices alone, not norms and embeddings."""
    clip_norm: float = 1.0
    """Largest global norm of a gradient; 0: gradients are not clipped."""
    average: Decay = 0.0
    """Decay of a running mean of the weights, which is evaluated and is the result; 0: none. Its bias towards
    the first weights is corrected (Kingma and Ba 2015)."""

    def check(self) -> None:
        if self.schedule == "stable_decay" and not self.decay_share:
            raise UserError(
                "optimizer.decay_share is 0; a schedule of stable_decay needs a share that decays"
            )


@dataclass(frozen=True, kw_only=True)
class SafetyConfig:
    """What a run does against faults."""

    rollback_after: Count = 20
    """Refused steps in a row after which the run goes back to its last checkpoint and leaves out their
    batches."""
    replay_every: int = 0
    """Steps between checks for silent corruption, each about two steps long; 0: never."""
    on_corruption: Literal["stop", "roll back"] = "stop"
    """End the run, or go on from the last checkpoint that a check has passed."""
    keep: KeepConfig = field(default_factory=KeepConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long a stage trains, on which devices, with which optimizer, and what it does against faults."""

    optimizer: OptimizerConfig
    mesh: Operational[MeshConfig] = field(default_factory=MeshConfig)
    steps: Adjustable[int] = 0
    """Optimizer steps; 0: as many as the stage's `epochs` ask for. A stage without that field refuses 0."""
    microbatches: Operational[Count] = 1
    """Parts that a batch is cut into, to save memory; the step is the same."""
    dtype: Literal["model", "float32", "bfloat16"] = "model"
    """Of activations and frozen weights; model: its folder's."""
    remat: Operational[Literal["model", "none", "dots", "full", "offload"]] = "model"
    """As `ModelConfig.remat`; model: that itself."""
    evaluate_every: Operational[int] = 100
    """Steps between evaluations on held-out data; 0: only after the last step."""
    checkpoint_every: Operational[int] = 100
    """Steps between checkpoints; 0: only after the last step."""
    log_every: Operational[int] = 10
    """Steps between console lines and lines of speed, 0: none; metrics.jsonl has every step."""
    early_stop: Adjustable[int] = 0
    """Evaluations in a row without a better held-out number, after which the best is the result; 0: never."""
    safety: Operational[SafetyConfig] = field(default_factory=SafetyConfig)
    profile: Operational[int] = 0
    """Steps traced, from the fourth on: `profile/profile.txt` says where their time went; 0: none."""
    peak_tflops: Operational[float] = 0.0
    """Peak dense TFLOP/s of one device, for MFU; 0: by the device's name, where it is known."""
    trackers: Operational[tuple[Tracker, ...]] = ("tensorboard",)
    """Where the numbers are shown beside `metrics.jsonl`: tensorboard, wandb, mlflow, trackio."""
    seed: int = 0
    """Seed of new weights, of the order of the data, and of what is sampled."""

    def check(self) -> None:
        if self.early_stop and not self.safety.keep.best:
            raise UserError("train.early_stop needs the best checkpoint; set train.safety.keep.best")
        if self.early_stop and not self.evaluate_every:
            raise UserError("train.early_stop counts evaluations; set train.evaluate_every above 0")

    def need_steps(self) -> None:
        """UserError where a stage without `epochs` is not told how long to train."""
        if not self.steps:
            raise UserError("train.steps is 0; this stage needs a number of optimizer steps, at least 1")

    def lasting(self, steps: int) -> Self:
        """This config with a number of steps: `steps` where it names none."""
        return replace(self, steps=self.steps or steps)


def due(step: int, every: int) -> bool:
    """Whether something that is done every so many steps is done after this one; 0: never."""
    return every > 0 and step % every == 0
