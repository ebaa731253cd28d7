"""FinetuneConfig and run(): next-token prediction on what the assistant says."""

import json
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax

from jaxtrain import artifact
from jaxtrain.feed import loader
from jaxtrain.model import store
from jaxtrain.model.generate import sample
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.progress import say
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.evaluation import summed_nats
from jaxtrain.train.loop import Schedule, train
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import initializer


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Train all weights on conversations; the loss is on the assistant's tokens and its `<|end|>`."""

    model: str
    """Folder of a pretrain (or finetune) artifact."""
    data: str
    """Folder of a tokenize artifact with conversations."""
    out: str
    """Folder to write."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-3))
    mesh: MeshConfig = field(default_factory=MeshConfig)
    steps: int = 80
    """Optimizer steps."""
    batch_size: int = 16
    """Rows of the global batch, each packed with conversations to the model's max_length."""
    heldout_share: float = 0.05
    """Share of the conversations kept for evaluation."""
    evaluate_every: int = 40
    """Steps between evaluations on held-out conversations."""
    checkpoint_every: int = 40
    """Steps between checkpoints."""
    sample_questions: tuple[str, ...] = ("What is the capital of France?", "How can I make a friend happy?")
    """Answered at every evaluation."""
    seed: int = 0
    """Of shuffling and samples."""


configs: tuple[type, ...] = (FinetuneConfig,)


def run(config: FinetuneConfig) -> Path:
    return artifact.produce(
        config, {"model": config.model, "data": config.data}, partial(_finetune, config), resume=True
    )


def _finetune(config: FinetuneConfig, folder: Path) -> dict[str, Any]:
    with jax.set_mesh(meshes.make(config.mesh)):
        return _train(config, Tokenizer.load(Path(config.model) / "tokenizer"), folder)


def _train(config: FinetuneConfig, tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    model_config = store.read_config(config.model)
    store.write_config(folder, model_config)
    shutil.copytree(Path(config.model) / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    optimizer = optimizers.make(config.optimizer, config.steps)
    batches = partial(
        loader.conversation_batches,
        config.data,
        batch_size=config.batch_size,
        length=model_config.max_length,
        seed=config.seed,
        heldout_share=config.heldout_share,
        tokenizer_fingerprint=tokenizer.fingerprint,
        process=(jax.process_index(), jax.process_count()),
    )
    heldout = batches(split="heldout")
    final: dict[str, Any] = {}

    def evaluate(model: Transformer, step: int) -> dict[str, Any]:
        nats, targets = summed_nats(model, heldout)
        _write_samples(folder / "samples.jsonl", model, tokenizer, config, step)
        final["heldout_loss"] = nats / targets
        return {"loss": nats / targets}

    schedule = Schedule(
        steps=config.steps, evaluate_every=config.evaluate_every, checkpoint_every=config.checkpoint_every
    )
    train(
        folder,
        schedule,
        init=initializer(partial(Transformer, model_config), optimizer, config.seed),
        loss=token_loss,
        optimizer=optimizer,
        batches=partial(loader.prefetch, batches(split="train")),
        evaluate=evaluate,
        pretrained=lambda: store.load(config.model),
    )
    return {"steps": config.steps, **final}


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
