"""FinetuneConfig and run(): next-token prediction on what the assistant says; all weights, or adapters."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jaxtrain import weights
from jaxtrain.config import Stage
from jaxtrain.decode.answers import Samples, chats
from jaxtrain.feed import loader
from jaxtrain.feed.sources import TokenData
from jaxtrain.fields import Operational
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Share
from jaxtrain.tokenize.publish import same_ids
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.config import OptimizerConfig, TrainConfig
from jaxtrain.train.context import produce, training
from jaxtrain.train.heldout import summed_nats
from jaxtrain.train.loop import Feed, train
from jaxtrain.train.losses import token_loss
from jaxtrain.weights.folder import write_about
from jaxtrain.weights.learners import learner_of, runs_as


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Stage):
    """Train on conversations; the loss is on the assistant's tokens and the end of its turn."""

    model: str
    """Folder of a pretrain (or finetune) artifact, or a Hugging Face folder."""
    data: str
    """Folder of a tokenize artifact with conversations, made with the model's tokenizer."""
    sources: tuple[str, ...] = ()
    """Sources of conversations to learn from; none: all that `data` has."""
    lora: LoRAConfig = LoRAConfig(rank=0)
    train: TrainConfig = TrainConfig(
        optimizer=OptimizerConfig(lr=1e-3), steps=80, evaluate_every=40, checkpoint_every=40
    )
    batch_size: Count = 16
    """Rows of the global batch, each packed with conversations."""
    length: int = 0
    """Tokens a row; 0: the model's max_length."""
    too_long: Literal["leave out", "refuse"] = "leave out"
    """What is done with a conversation longer than a row; those left out are counted."""
    heldout_share: Share = 0.05
    """Share of the conversations kept for evaluation."""
    sample_questions: Operational[tuple[str, ...]] = (
        "What is the capital of France?",
        "How can I make a friend happy?",
    )
    """Answered at every evaluation; none: nothing is sampled."""

    def check(self) -> None:
        self.train.need_steps()


def run(config: FinetuneConfig) -> Path:
    return produce(config, {"model": config.model, "data": config.data}, partial(_finetune, config))


def _finetune(config: FinetuneConfig, folder: Path) -> dict[str, Any]:
    tokenizer, model = _tokenizer(config), runs_as(config.train, weights.open(config.model).config)
    length = config.length or model.max_length
    with training(config.train, folder, partial(write_about, model, tokenizer)) as run:
        meshes.check_rows(config.batch_size, length, config.train.microbatches, model.stage_microbatches)
        counts = _counted(config, length)
        size = {"batch_size": config.batch_size, "length": length, "seed": config.train.seed}
        chosen = {"heldout_share": config.heldout_share, "sources": config.sources}
        batches = partial(loader.conversation_batches, config.data, **chosen, **size)
        heldout = batches(split="heldout")
        samples = Samples(run.folder, chats(config.sample_questions), tokenizer, config.train.seed)

        def evaluate(learned: Transformer, step: int) -> dict[str, Any]:
            nats, targets = summed_nats(learned, heldout)
            samples.write(learned, step)
            return {"loss": nats / targets}

        trained = train(
            run,
            learner_of(config, run.folder, model),
            token_loss,
            Feed(partial(loader.prefetch, batches(split="train"))),
            evaluate,
            watch="loss",
            flops_per_token=model.flops_per_token(length),
        )
        return {**counts, "steps": trained.step, "heldout_loss": trained.heldout["loss"]}


def _tokenizer(config: FinetuneConfig) -> Tokenizer:
    """The data's, which may have another chat template than the model's, but not other ids."""
    ours, theirs = Tokenizer.load(config.data), weights.open(config.model).tokenizer
    if not same_ids(ours, theirs):
        raise UserError(
            f"{config.data} was made with another tokenizer than {config.model} has; run `jaxtrain tokenize` "
            "with the model's"
        )
    return ours


def _counted(config: FinetuneConfig, length: int) -> dict[str, Any]:
    """Conversations and how many of them are longer than a row; UserError where those are refused."""
    data = TokenData.open(config.data)
    known = data.names("conversations")
    if unknown := sorted(set(config.sources) - set(known)):
        raise UserError(f"sources names {unknown[0]!r}; {config.data} has {', '.join(known)}")
    sizes = {source: data.lengths("conversations", source) for source in config.sources or known}
    long = {source: int((lengths > length).sum()) for source, lengths in sizes.items()}
    if config.too_long == "refuse" and any(long.values()):
        source = next(source for source, count in long.items() if count)
        raise UserError(
            f"{long[source]} conversations of {source} are longer than length = {length} tokens, up to "
            f"{sizes[source].max()}; raise length, or set too_long to 'leave out'"
        )
    return {"conversations": sum(map(len, sizes.values())), "too_long": sum(long.values())}
