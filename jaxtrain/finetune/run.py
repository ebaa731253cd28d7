"""FinetuneConfig and run(): next-token prediction on what the assistant says; all weights, or adapters."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxtrain import artifact, weights
from jaxtrain.decode.generate import sample
from jaxtrain.feed import loader
from jaxtrain.feed.sources import TokenData
from jaxtrain.fields import Adjustable, Operational
from jaxtrain.model import lora
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.checkpoint import last_step
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.progress import say
from jaxtrain.runtime.trackers import Tracker
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.evaluation import summed_nats
from jaxtrain.train.loop import SafetyConfig, Schedule, train
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import initializer
from jaxtrain.weights import folder as store


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Train on conversations; the loss is on the assistant's tokens and the end of its turn."""

    VERSION: ClassVar[int] = 1

    model: str
    """Folder of a pretrain (or finetune) artifact, or a Hugging Face folder."""
    data: str
    """Folder of a tokenize artifact with conversations, made with the model's tokenizer."""
    out: str
    """Folder to write."""
    lora: LoRAConfig = field(default_factory=lambda: LoRAConfig(rank=0))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-3))
    mesh: Operational[MeshConfig] = field(default_factory=MeshConfig)
    safety: Operational[SafetyConfig] = field(default_factory=SafetyConfig)
    steps: Adjustable[int] = 80
    """Optimizer steps."""
    batch_size: int = 16
    """Rows of the global batch, each packed with conversations."""
    microbatches: int = 1
    """Parts that a batch is worked through in; same loss, less memory."""
    length: int = 0
    """Tokens a row; 0: the model's max_length."""
    too_long: Literal["leave out", "refuse"] = "leave out"
    """What is done with a conversation longer than a row; those left out are counted."""
    dtype: Literal["model", "float32", "bfloat16"] = "model"
    """Of activations, and of the frozen weights beside adapters; model: as the model has it."""
    remat: Literal["none", "dots", "full", "offload"] = "none"
    """What the backward pass finds (`ModelConfig.remat`)."""
    heldout_share: float = 0.05
    """Share of the conversations kept for evaluation."""
    evaluate_every: Operational[int] = 40
    """Steps between evaluations on held-out conversations."""
    checkpoint_every: Operational[int] = 40
    """Steps between checkpoints."""
    sample_questions: Operational[tuple[str, ...]] = (
        "What is the capital of France?",
        "How can I make a friend happy?",
    )
    """Answered at every evaluation."""
    trackers: Operational[tuple[Tracker, ...]] = ("tensorboard",)
    """Where the numbers are shown beside `metrics.jsonl`: tensorboard, wandb, mlflow, trackio."""
    seed: int = 0
    """Of shuffling, adapters, dropout and samples."""


configs: tuple[type, ...] = (FinetuneConfig,)


def run(config: FinetuneConfig) -> Path:
    return artifact.produce(
        config,
        {"model": config.model, "data": config.data},
        partial(_finetune, config),
        trained=last_step,
    )


def _finetune(config: FinetuneConfig, folder: Path) -> dict[str, Any]:
    with jax.set_mesh(meshes.make(config.mesh)):
        return _train(config, _tokenizer(config), folder)


def _tokenizer(config: FinetuneConfig) -> Tokenizer:
    """The data's, which may have another chat template than the model's, but not other ids."""
    ours, theirs = (
        Tokenizer.load(config.data),
        weights.open(config.model).tokenizer,
    )
    if ours.vocabulary_fingerprint != theirs.vocabulary_fingerprint:
        raise UserError(
            f"{config.data} was made with another tokenizer than {config.model} has; run `jaxtrain tokenize` "
            "with the model's"
        )
    return ours


def _train(config: FinetuneConfig, tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    model_config = _runs_as(config, store.read_config(config.model))
    store.write_config(folder, model_config)
    tokenizer.save_in(folder)
    length = config.length or model_config.max_length
    counts = _counted(config, length)
    optimizer = optimizers.make(config.optimizer, config.steps)
    batches = partial(
        loader.conversation_batches,
        config.data,
        batch_size=config.batch_size,
        length=length,
        seed=config.seed,
        heldout_share=config.heldout_share,
        tokenizer_fingerprint=tokenizer.fingerprint,
        process=(jax.process_index(), jax.process_count()),
    )
    heldout = batches(split="heldout")
    subject = _adapters(config, model_config) if config.lora.rank else _all_weights(config, model_config)
    if config.lora.rank:
        store.write_adapter(folder, config.model, config.lora)
    final: dict[str, Any] = {}

    def evaluate(learned: Any, step: int) -> dict[str, Any]:
        model = subject.whole(learned)
        nats, targets = summed_nats(model, heldout)
        if config.sample_questions:
            _write_samples(folder / "samples.jsonl", model, tokenizer, config, step)
        final["heldout_loss"] = nats / targets
        return {"loss": nats / targets}

    schedule = Schedule(
        steps=config.steps, evaluate_every=config.evaluate_every, checkpoint_every=config.checkpoint_every
    )
    train(
        folder,
        schedule,
        init=initializer(subject.init, optimizer, config.seed),
        loss=subject.loss,
        optimizer=optimizer,
        batches=partial(loader.prefetch, batches(split="train")),
        evaluate=evaluate,
        microbatches=config.microbatches,
        pretrained=subject.start,
        learning_rate=optimizers.learning_rate(config.optimizer, config.steps),
        safety=config.safety,
        frozen=subject.frozen,
        trackers=config.trackers,
    )
    return {"steps": config.steps, **counts, **final}


@dataclass(frozen=True)
class _Subject:
    """What learns."""

    init: Callable[[jax.Array], Any]
    """Its shapes, by a key."""
    start: Callable[[], Any]
    loss: Callable[..., tuple[jax.Array, jax.Array]]
    whole: Callable[[Any], Transformer]
    """The model that it makes."""
    frozen: Any = None


def _all_weights(config: FinetuneConfig, model_config: ModelConfig) -> _Subject:
    return _Subject(
        init=partial(Transformer, model_config),
        start=lambda: store.load(config.model, model_config),
        loss=token_loss,
        whole=lambda model: model,
    )


def _adapters(config: FinetuneConfig, model_config: ModelConfig) -> _Subject:
    """The model itself is loaded now, stays as it is and is in no checkpoint."""
    key = jax.random.key(config.seed)
    base = store.load(config.model, model_config, model_config.dtype)
    adapted = jax.jit(lora.adapt, static_argnums=1)(base, config.lora, key)
    total, learning = (sum(x.size for x in jax.tree.leaves(tree)) for tree in (base, lora.take(adapted)))
    say(f"finetune: adapters of {learning:,} weights beside {total:,} that stay")

    def loss(adapters: lora.Adapters, batch: dict[str, jax.Array], model: Transformer, step: jax.Array):
        tokens = jnp.sum(batch["tokens"]).astype(jnp.uint32)  # another key for each micro-batch
        dropout_key = jax.random.fold_in(jax.random.fold_in(key, step), tokens)
        return token_loss(lora.put(model, adapters, dropout_key), batch)

    return _Subject(
        init=lambda key: lora.take(lora.adapt(Transformer(model_config, key), config.lora, key)),
        start=lambda: jax.tree.map(jnp.copy, lora.take(adapted)),  # a step gives its state's memory away
        loss=loss,
        whole=lambda adapters: lora.put(adapted, adapters),
        frozen=adapted,
    )


def _runs_as(config: FinetuneConfig, model: ModelConfig) -> ModelConfig:
    dtype = model.dtype if config.dtype == "model" else config.dtype
    return dataclasses.replace(model, dtype=dtype, remat=config.remat)


def _counted(config: FinetuneConfig, length: int) -> dict[str, Any]:
    """Conversations and how many of them are longer than a row; UserError where those are refused."""
    data = TokenData.open(config.data)
    sizes = {source: data.lengths("conversations", source) for source in data.names("conversations")}
    long = {source: int((lengths > length).sum()) for source, lengths in sizes.items()}
    if config.too_long == "refuse" and any(long.values()):
        source = next(source for source, count in long.items() if count)
        raise UserError(
            f"{long[source]} conversations of {source} are longer than length = {length} tokens, up to "
            f"{sizes[source].max()}; raise length, or set too_long to 'leave out'"
        )
    return {"conversations": sum(map(len, sizes.values())), "too_long": sum(long.values())}


def _write_samples(
    path: Path, model: Transformer, tokenizer: Tokenizer, config: FinetuneConfig, step: int
) -> None:
    prompts = [
        render([{"role": "user", "content": question}], tokenizer, generation_prompt=True)[0]
        for question in config.sample_questions
    ]
    stop = tokenizer.end
    answers = sample(
        model, prompts, seed=config.seed, max_new=48, stop=stop, pad=tokenizer.pad, temperature=0.8
    )
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    kept = [
        line + "\n" for line in lines if json.loads(line)["step"] < step
    ]  # a killed run may have come further
    with path.open("w", encoding="utf-8") as file:
        file.writelines(kept)
        for question, ids in zip(config.sample_questions, answers, strict=True):
            text = tokenizer.decode([i for i in ids if i != stop])
            file.write(
                json.dumps({"step": step, "prompt": question, "completion": text}, ensure_ascii=False) + "\n"
            )
            say(f"  {question!r} -> {text!r}")
