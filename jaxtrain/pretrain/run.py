"""PretrainConfig and run(): next-token prediction on documents."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jaxtrain import artifact
from jaxtrain.config import Stage
from jaxtrain.decode.answers import Samples
from jaxtrain.feed import heldout, loader
from jaxtrain.feed.documents import Documents, Packing, Phase
from jaxtrain.fields import Operational
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Positive
from jaxtrain.runtime.progress import say
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.config import OptimizerConfig, TrainConfig
from jaxtrain.train.context import produce, training
from jaxtrain.train.learner import Learner
from jaxtrain.train.loop import Feed, train
from jaxtrain.train.losses import token_loss
from jaxtrain.weights.folder import write_about
from jaxtrain.weights.learners import runs_as


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A smaller batch at the beginning: gradients agree there, and many small steps learn more."""

    steps: Count
    """The first so many steps have it, those of a smaller rung before it aside."""
    microbatches: Count
    """Micro-batches of such a step, fewer than `train.microbatches`."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Stage):
    """Train a transformer on a tokenize artifact."""

    data: str
    """Folder of a tokenize artifact."""
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig(optimizer=OptimizerConfig(), steps=400)
    batch_size: Count = 16
    """Rows of the global batch; tokens a step = batch_size x model.max_length."""
    packing: Packing = "best_fit"
    """How documents fill rows: `best_fit` cuts those longer than a row, `concat_and_split` at row ends."""
    curriculum: tuple[Phase, ...] = ()
    """Proportions of the sources that take over at stated steps from those of `mixture.json`."""
    max_epochs: Positive = 4.0
    """Most times that a source may be read; beyond four, repeats are worth ever less (arXiv 2305.16264)."""
    batch_ramp: tuple[Ramp, ...] = ()
    """Batches of fewer micro-batches at the beginning; the learning rate does not follow. Shapes stay, so the
    step is compiled once, and what is left out is not computed."""
    z_loss: float = 1e-4
    """Weight of log²Z (PaLM), which keeps logits from drifting."""
    heldout_batches: Operational[Count] = 2
    """Batches of each source that an evaluation reads; the evaluate stage reads all."""
    sample_prompts: Operational[tuple[str, ...]] = ("The", "She said", "def")
    """Continued at every evaluation, to watch it learn; none: nothing is sampled."""

    def check(self) -> None:
        self.train.need_steps()


def run(config: PretrainConfig) -> Path:
    return produce(config, {"data": config.data}, partial(_pretrain, config))


def _pretrain(config: PretrainConfig, folder: Path) -> dict[str, Any]:
    artifact.require(config.data, "tokenize")
    tokenizer = Tokenizer.load(config.data)
    if config.model.vocab_size != tokenizer.vocab_size:
        raise UserError(
            f"model.vocab_size is {config.model.vocab_size}, but the tokenizer of {config.data} has "
            f"{tokenizer.vocab_size}; set model.vocab_size to that"
        )
    model = runs_as(config.train, config.model)
    with training(config.train, folder, partial(write_about, model, tokenizer)) as run:
        meshes.check_rows(
            config.batch_size, model.max_length, config.train.microbatches, model.stage_microbatches
        )
        rows = config.batch_size // config.train.microbatches
        size = {"batch_size": config.batch_size, "length": model.max_length}
        documents = Documents.open(
            config.data,
            **size,
            seed=config.train.seed,
            packing=config.packing,
            curriculum=config.curriculum,
            smaller=tuple((ramp.steps, ramp.microbatches * rows) for ramp in config.batch_ramp),
        )
        for source, need in documents.needs(config.train.steps, config.max_epochs).items():
            say(f"  {source:<12}{need}")
        prompts = {text: [tokenizer.bos, *tokenizer.encode(text)] for text in config.sample_prompts}
        samples = Samples(run.folder, prompts, tokenizer, config.train.seed)

        def evaluate(learned: Transformer, step: int) -> dict[str, Any]:
            found = heldout.measure(learned, config.data, most=config.heldout_batches, **size)
            samples.write(learned, step)
            values = {"bits_per_byte": found.pop("all")}
            return values | {f"bits_per_byte/{source}": bits for source, bits in found.items()}

        trained = train(
            run,
            Learner(partial(Transformer, model)),
            partial(token_loss, z_loss=config.z_loss),
            Feed(
                partial(loader.prefetch, loader.document_batches(documents)),
                documents.records,
                phases=frozenset(phase.step for phase in config.curriculum),
                ramps=bool(config.batch_ramp),
            ),
            evaluate,
            watch="bits_per_byte",
            flops_per_token=model.flops_per_token(),
        )
        return {
            "steps": trained.step,
            "tokens": documents.sizes.first(trained.step) * model.max_length,
            "matmul_parameters": model.matmul_parameters,
            "heldout": trained.heldout,
        }
