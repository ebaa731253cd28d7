"""PretrainConfig and run(): next-token prediction on documents."""

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax

from jaxtrain import artifact
from jaxtrain.decode.generate import sample
from jaxtrain.feed import heldout, loader
from jaxtrain.feed.documents import Documents, Packing, Phase
from jaxtrain.feed.sizes import BatchSizes
from jaxtrain.feed.sources import TokenData
from jaxtrain.fields import Adjustable, Operational
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import cost, distributed
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.checkpoint import last_step
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.progress import say
from jaxtrain.runtime.trackers import Tracker
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.loop import SafetyConfig, Schedule, train
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import initializer
from jaxtrain.weights import folder as store


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A smaller batch at the beginning: gradients agree there, and many small steps learn more."""

    steps: int
    """The first so many steps have it, those of a smaller rung before it aside."""
    microbatches: int
    """Micro-batches of such a step, fewer than the config's `microbatches`."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Train a transformer on a tokenize artifact."""

    VERSION: ClassVar[int] = 1

    data: str
    """Folder of a tokenize artifact."""
    out: str
    """Folder to write."""
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: Operational[MeshConfig] = field(default_factory=MeshConfig)
    steps: Adjustable[int] = 400
    """Optimizer steps."""
    batch_size: int = 16
    """Rows of the global batch; tokens a step = batch_size x model.max_length."""
    packing: Packing = "best_fit"
    """How documents fill rows: `best_fit` cuts those longer than a row, `concat_and_split` at row ends."""
    curriculum: tuple[Phase, ...] = ()
    """Proportions of the sources that take over at stated steps from those of `mixture.json`."""
    max_epochs: float = 4.0
    """Most times that a source may be read; beyond four, repeats are worth ever less (arXiv 2305.16264)."""
    microbatches: int = 1
    """Parts that a batch is cut into, to save memory; the gradient is the same."""
    batch_ramp: tuple[Ramp, ...] = ()
    """Batches of fewer micro-batches at the beginning; the learning rate does not follow. Shapes stay, so the
    step is compiled once, and what is left out is not computed."""
    z_loss: float = 1e-4
    """Weight of log²Z (PaLM), which keeps logits from drifting."""
    evaluate_every: Operational[int] = 100
    """Steps between evaluations on held-out documents."""
    heldout_batches: Operational[int] = 2
    """Batches of each source read in those evaluations; the evaluate stage reads all."""
    checkpoint_every: Operational[int] = 100
    """Steps between checkpoints."""
    sample_prompts: Operational[tuple[str, ...]] = ("The", "She said", "def")
    """Continued at every evaluation, to watch it learn."""
    early_stop: Adjustable[int] = 0
    """Evaluations in a row without fewer bits per byte, after which the best one is the result; 0: never."""
    safety: Operational[SafetyConfig] = field(default_factory=SafetyConfig)
    profile: Operational[int] = 0
    """Steps traced, from the fourth on: `profile/profile.txt` says where their time went; 0: none."""
    trackers: Operational[tuple[Tracker, ...]] = ("tensorboard",)
    """Where the numbers are shown beside `metrics.jsonl`: tensorboard, wandb, mlflow, trackio."""
    seed: int = 0
    """Of weights, shuffling and samples."""


configs: tuple[type, ...] = (PretrainConfig,)


def run(config: PretrainConfig) -> Path:
    distributed.initialize()
    others = artifact.Others(jax.process_index() == 0, distributed.wait)
    return artifact.produce(
        config,
        {"data": config.data},
        partial(_pretrain, config),
        trained=last_step,
        others=others,
    )


def _pretrain(config: PretrainConfig, folder: Path) -> dict[str, Any]:
    artifact.require(config.data, "tokenize")
    tokenizer = Tokenizer.load(config.data)
    _check(config, tokenizer)
    mesh = meshes.make(config.mesh)
    say(f"mesh {dict(mesh.shape)} on {jax.devices()[0].device_kind}")
    with jax.set_mesh(mesh):
        parts = config.microbatches * meshes.batch_rows()
        if config.batch_size % parts:
            raise UserError(
                f"batch_size is {config.batch_size}; {config.microbatches} microbatches on "
                f"{meshes.batch_rows()} devices need a multiple of {parts}"
            )
        return _train(config, tokenizer, folder)


def _check(config: PretrainConfig, tokenizer: Tokenizer) -> None:
    if config.model.vocab_size != tokenizer.vocab_size:
        raise UserError(
            f"model.vocab_size is {config.model.vocab_size}, but the tokenizer of {config.data} has "
            f"{tokenizer.vocab_size}; set model.vocab_size to that"
        )
    needs = loader.needs(config.data, config.steps, max_epochs=config.max_epochs, **_batches(config))
    for source, need in needs.items():
        say(f"  {source:<12}{need}")


def _batches(config: PretrainConfig) -> dict[str, Any]:
    """How documents become batches."""
    return {
        "batch_size": config.batch_size,
        "length": config.model.max_length,
        "seed": config.seed,
        "packing": config.packing,
        "curriculum": config.curriculum,
        "smaller": _sizes(config).smaller,
    }


def _sizes(config: PretrainConfig) -> BatchSizes:
    """Rows of the batch of every step."""
    rows = config.batch_size // config.microbatches
    return BatchSizes(config.batch_size, tuple((r.steps, r.microbatches * rows) for r in config.batch_ramp))


def _train(config: PretrainConfig, tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    if jax.process_index() == 0:
        store.write_config(folder, config.model)
        tokenizer.save_in(folder)
    optimizer = optimizers.make(config.optimizer, config.steps)
    dataset = loader.document_batches(
        config.data,
        **_batches(config),
        tokenizer_fingerprint=tokenizer.fingerprint,
        process=(jax.process_index(), jax.process_count()),
    )
    final: dict[str, Any] = {}

    def records(index: int) -> list[dict[str, Any]]:
        return Documents.open(TokenData.open(config.data), **_batches(config)).records(index)

    def evaluate(model: Transformer, step: int) -> dict[str, Any]:
        found = heldout.measure(
            model,
            config.data,
            batch_size=config.batch_size,
            length=config.model.max_length,
            most=config.heldout_batches,
        )
        values = {"bits_per_byte": found.pop("all").bits_per_byte}
        values |= {f"bits_per_byte/{source}": of.bits_per_byte for source, of in found.items()}
        if jax.process_count() == 1:  # sampling stops by the host, which several would have to agree on
            _write_samples(folder / "samples.jsonl", model, tokenizer, config, step)
        final.update(values)
        return values

    schedule = Schedule(
        steps=config.steps,
        evaluate_every=config.evaluate_every,
        checkpoint_every=config.checkpoint_every,
        early_stop=config.early_stop,
    )
    state = train(
        folder,
        schedule,
        init=initializer(partial(Transformer, config.model), optimizer, config.seed),
        loss=partial(token_loss, z_loss=config.z_loss),
        optimizer=optimizer,
        batches=partial(loader.prefetch, dataset),
        evaluate=evaluate,
        microbatches=config.microbatches,
        ramps=bool(config.batch_ramp),
        records=records,
        watch="bits_per_byte",
        learning_rate=optimizers.learning_rate(config.optimizer, config.steps),
        flops_per_token=cost.flops_per_token(
            config.model.matmul_parameters,
            config.model.layers,
            config.model.max_length,
            config.model.heads * config.model.head_dim,
        ),
        safety=config.safety,
        profile=config.profile,
        trackers=config.trackers,
    )
    return {
        "steps": int(state.step),
        "tokens": _sizes(config).first(int(state.step)) * config.model.max_length,
        "matmul_parameters": config.model.matmul_parameters,
        "heldout": final,
    }


def _write_samples(
    path: Path, model: Transformer, tokenizer: Tokenizer, config: PretrainConfig, step: int
) -> None:
    prompts = [[tokenizer.bos, *tokenizer.encode(text)] for text in config.sample_prompts]
    completions = sample(
        model, prompts, seed=config.seed, max_new=48, stop=tokenizer.eos, pad=tokenizer.pad, temperature=0.8
    )
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    kept = [
        line + "\n" for line in lines if json.loads(line)["step"] < step
    ]  # a killed run may have come further
    with path.open("w", encoding="utf-8") as file:
        file.writelines(kept)
        for prompt, ids in zip(config.sample_prompts, completions, strict=True):
            text = tokenizer.decode([i for i in ids if i != tokenizer.eos])
            file.write(
                json.dumps({"step": step, "prompt": prompt, "completion": text}, ensure_ascii=False) + "\n"
            )
            say(f"  {prompt!r} -> {text!r}")
