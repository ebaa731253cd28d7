"""A policy from comparisons without a reward model: DPO and its kin.

B pairs, R rows, T time. A pair has two rows, the chosen answer before the rejected one; with KTO four: behind
them the same prompt with the answers to another one, whose log-probabilities estimate the KL.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtrain import weights
from jaxtrain.align import judged
from jaxtrain.align import preference_losses as losses
from jaxtrain.align.comparisons import Part, Rows, encode, epochs, padded, parts_of, rows_of
from jaxtrain.config import Stage
from jaxtrain.fields import Adjustable
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Limits, Positive
from jaxtrain.runtime.progress import say
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.config import OptimizerConfig, TrainConfig
from jaxtrain.train.context import training
from jaxtrain.train.loop import train
from jaxtrain.train.losses import logprobs
from jaxtrain.weights.folder import write_about
from jaxtrain.weights.learners import learner_of, runs_as, without_dropout

FIELDS = ("tokens", "targets", "loss_weights", "segment_ids", "positions")
Kind = Literal["sigmoid", "sigmoid_norm", "ipo", "hinge", "robust", "simpo", "orpo", "kto"]


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig(Stage):
    """Improve a fine-tuned model on comparisons directly (DPO, IPO, SimPO, ORPO, KTO, …)."""

    VERSION: ClassVar[int] = 2

    model: str
    """Folder of the finetune artifact: the first policy and, where the loss has one, the reference."""
    ratings: str = ""
    """Folder of the rate artifact."""
    preferences: str = ""
    """In its place a file of preferences or rankings of any publisher (docs/formats.md, 1 collect)."""
    kind: Kind = "sigmoid"
    """The loss: sigmoid is DPO; hinge, ipo, robust and sigmoid_norm are its kin; simpo and orpo need no
    reference; kto takes the better answer as good and the worse as bad, not as a pair."""
    beta: float = 0.1
    """How hard the policy is held to the reference; of simpo the scale of the reward, of orpo the weight of
    the odds ratio beside the supervised loss."""
    label_smoothing: Annotated[float, Limits(0, 0.5, below=True)] = 0.0
    """Share of comparisons that are taken to be wrong; of sigmoid, sigmoid_norm and robust."""
    gamma: float = 0.5
    """Margin that simpo asks for."""
    lora: LoRAConfig = LoRAConfig(rank=0)
    train: TrainConfig = TrainConfig(
        optimizer=OptimizerConfig(lr=5e-5, warmup_steps=10, schedule="linear", weight_decay=0.0),
        evaluate_every=50,
    )
    """KTO's baseline is of each micro-batch."""
    epochs: Adjustable[Positive] = 1.0
    """Passes over the pairs, unless `train.steps` says how many steps."""
    batch_pairs: Count = 16
    """Pairs of a batch."""
    length: Annotated[int, Limits(2)] = 256
    """Tokens of prompt and answer. A longer prompt loses its beginning; a pair with an answer that leaves no
    token of the prompt is left out, and counted."""

    def check(self) -> None:
        without_dropout(self.lora)
        if self.label_smoothing and self.kind not in ("sigmoid", "sigmoid_norm", "robust"):
            raise UserError(
                f"label_smoothing has no meaning for {self.kind}; leave it 0, or take sigmoid or robust"
            )
        if self.kind == "ipo" and not self.beta:
            raise UserError("beta is 0; ipo asks for margins of 1 / (2 beta): give it a beta above 0")


@dataclass(frozen=True)
class Pairs:
    """Every two answers of a comparison that are not tied."""

    rows: Rows
    """tokens, targets, loss_weights, segment_ids, positions: [pairs · rows a pair, T]"""
    rows_a_pair: int = 2
    too_long: int = 0
    """Pairs left out because an answer fills a row."""

    def __len__(self) -> int:
        return len(self.rows["tokens"]) // self.rows_a_pair

    def beside(self, reference: Transformer) -> Self:
        """With the reference's log-probability of every answer."""
        reference_RT = np.zeros_like(self.rows["loss_weights"])
        # a number a row, laid over the devices as the row's tokens are
        reference_RT[:, 0] = summed_logprobs(reference, self.rows)
        return dataclasses.replace(self, rows=self.rows | {"reference": reference_RT})

    def take(self, pairs: np.ndarray) -> Rows:
        at = (self.rows_a_pair * pairs[:, None] + np.arange(self.rows_a_pair)).ravel()
        return {name: values[at] for name, values in self.rows.items()}


def read_pairs(path: Path | Part, tokenizer: Tokenizer, length: int, mismatched: bool = False) -> Pairs:
    """The pairs of one part of the comparisons; UserError where it has none.

    mismatched: behind each pair's rows two more, of its prompt with the answers of a pair of another prompt.
    """
    pairs: list[tuple[list[int], list[list[int]]]] = []
    too_long = 0
    for row in rows_of(path):
        prompt, answers = encode(row, tokenizer)
        for one, other in combinations(range(len(answers)), 2):
            if row["ranks"][one] == row["ranks"][other]:
                continue
            better, worse = sorted((one, other), key=lambda k: row["ranks"][k])
            if max(len(answers[one]), len(answers[other])) >= length:
                too_long += 1
            else:
                pairs.append((prompt, [answers[better], answers[worse]]))
    if too_long:
        say(f"{path}: left out {too_long} pairs with an answer of {length} tokens or more; raise length")
    if not pairs:
        raise UserError(
            f"{path} has no two answers of fewer than {length} tokens that are not tied; rate more, raise "
            "length, or change heldout_share"
        )
    if mismatched:
        partners = _partners([prompt for prompt, _ in pairs], path)
        pairs = [(prompt, own + pairs[n][1]) for (prompt, own), n in zip(pairs, partners, strict=True)]
    sequences = [(prompt, ids) for prompt, answers in pairs for ids in answers]
    return Pairs(pack(sequences, length, tokenizer.pad), 4 if mismatched else 2, too_long)


def _partners(prompts: list[list[int]], path: Path | Part) -> list[int]:
    """Of each pair the nearest one before it, in a circle, that has another prompt."""
    if all(prompt == prompts[0] for prompt in prompts):
        raise UserError(
            f"{path} has one prompt; kto holds answers against those to another prompt: rate more"
        )
    count = len(prompts)
    found = [-1] * count
    for n in [*range(count)] * 2:  # who has the prompt of the one before has its partner too
        found[n] = (n - 1) % count if prompts[n] != prompts[n - 1] else found[n - 1]
    return found


def pack(sequences: list[tuple[list[int], list[int]]], length: int, pad: int) -> Rows:
    """A row a (prompt, answer), padded on the right; only the answer's tokens are targets."""
    rows, count_B1 = padded([[*prompt, *answer] for prompt, answer in sequences], length, pad)
    at_T, answer_B1 = np.arange(length), np.array([[len(answer)] for _, answer in sequences])
    rows["targets"] = np.where(at_T < count_B1 - 1, np.roll(rows["tokens"], -1, axis=1), np.int32(pad))
    is_answer_BT = (at_T >= count_B1 - 1 - answer_B1) & (at_T < count_B1 - 1)
    return rows | {"loss_weights": np.float32(is_answer_BT)}


def train_preferences(config: PreferenceConfig, folder: Path) -> dict[str, Any]:
    tokenizer = weights.open(config.model).tokenizer
    model = runs_as(config.train, weights.open(config.model).config)
    kept_part, heldout_part = parts_of(config.ratings, config.preferences)
    kept = read_pairs(kept_part, tokenizer, config.length, mismatched=config.kind == "kto")
    heldout = read_pairs(heldout_part, tokenizer, config.length)
    say(f"align: {len(kept)} pairs to learn from, {len(heldout)} held out")
    settings = config.train.lasting(max(1, round(config.epochs * len(kept) / config.batch_pairs)))
    with training(settings, folder, partial(write_about, model, tokenizer)) as run:
        each, name = kept.rows_a_pair, f"batch_pairs times {kept.rows_a_pair} rows a pair"
        rows, parts = config.batch_pairs * each, settings.microbatches * each
        meshes.check_rows(rows, config.length, parts, model.stage_microbatches, name)
        if config.kind not in ("simpo", "orpo"):
            reference = weights.open(config.model).load(model, model.dtype)
            # all pairs: rollbacks leave batches out, so which ones the steps come to is not known before
            kept, heldout = kept.beside(reference), heldout.beside(reference)
            del reference

        def take(pairs: np.ndarray) -> Rows:
            rows = kept.take(pairs)
            if config.kind == "orpo":  # the mean over the tokens of the whole batch, whatever its parts
                tokens = rows["loss_weights"][0::2].sum()
                rows["nll_scale"] = np.full_like(rows["loss_weights"], len(pairs) / tokens)
            return rows

        trained = train(
            run,
            learner_of(config, run.folder, model),
            partial(preference_loss, config),
            epochs("pairs", len(kept), config.batch_pairs, config.train.seed, take),
            lambda model, step: _measure(config, model, heldout),
            watch="-accuracy",
            flops_per_token=model.flops_per_token(config.length),
        )
    counts = {"kind": config.kind, "pairs_train": len(kept), "pairs_heldout": len(heldout)}
    counts |= {"pairs_too_long": kept.too_long + heldout.too_long}
    found = {f"heldout_{name}": value for name, value in trained.heldout.items()}
    return {"steps": trained.step} | counts | found


def summed_logprobs(model: Transformer, rows: Rows, batch_size: int = 64) -> np.ndarray:
    """log p of each row's answer, float32 [rows]; so many rows at a time."""
    return meshes.map_rows(partial(_summed, model), {name: rows[name] for name in FIELDS}, batch_size)


@jax.jit
def _summed(model: Transformer, batch: dict[str, jax.Array]) -> jax.Array:
    return jnp.sum(_answer_logprobs(model, batch), axis=1)


def _answer_logprobs(model: Transformer, batch: dict[str, jax.Array]) -> jax.Array:
    """log p of each token of the answers, 0 elsewhere, [R, T]."""
    hidden_RTD = model.hidden(batch["tokens"], batch["segment_ids"], batch["positions"])
    logprob_RT, _ = logprobs(model, hidden_RTD, batch["targets"])
    return logprob_RT * batch["loss_weights"]


def preference_loss(
    config: PreferenceConfig, model: Transformer, batch: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Summed loss of the pairs of a batch, and their number."""
    logprob_RT = _answer_logprobs(model, batch)
    reference_RT = batch.get("reference", jnp.zeros_like(logprob_RT))
    numbers_R3T = jnp.stack([logprob_RT, reference_RT, batch["loss_weights"]], axis=1)
    # a pair's rows may lie on two devices: the three numbers of every row go to all of them
    numbers_R3 = jax.sharding.reshard(jnp.sum(numbers_R3T, axis=2), P(None, None))
    rows = 4 if config.kind == "kto" else 2
    numbers_BR3 = jnp.reshape(numbers_R3, (-1, rows, 3))
    pairs = numbers_BR3.shape[0]
    (chosen, rejected), (ref_chosen, ref_rejected), lengths = numbers_BR3[:, :2].transpose(2, 1, 0)
    mean_chosen, mean_rejected = chosen / lengths[0], rejected / lengths[1]
    match config.kind:
        case "simpo":
            loss = losses.simpo(mean_chosen, mean_rejected, beta=config.beta, gamma=config.gamma)
        case "orpo":
            # of a whole batch its mean over tokens; parts of one add up to it by the batch's own `nll_scale`
            scale = jnp.max(batch["nll_scale"]) if "nll_scale" in batch else pairs / jnp.sum(lengths[0])
            nll = -jnp.sum(chosen) * scale / pairs
            loss = losses.orpo(mean_chosen, mean_rejected, beta=config.beta, nll=nll)
        case "kto":
            (logp, ref_logp), (other, ref_other) = (
                (numbers_BR3[:, part, 0].ravel(), numbers_BR3[:, part, 1].ravel())
                for part in (slice(0, 2), slice(2, 4))
            )
            desirable = jnp.arange(2 * pairs) % 2 == 0
            loss = losses.kto(logp, ref_logp, desirable, other, ref_other, beta=config.beta)
        case _:
            shape = {"kind": config.kind, "beta": config.beta, "label_smoothing": config.label_smoothing}
            tokens = {"chosen_length": lengths[0], "rejected_length": lengths[1]}
            loss = losses.dpo(chosen, rejected, ref_chosen, ref_rejected, **shape, **tokens)
    return loss * pairs, jnp.float32(pairs)


def _measure(config: PreferenceConfig, model: Transformer, pairs: Pairs) -> dict[str, float]:
    """How often the policy's own preference is the raters': the implicit reward of the chosen is higher; and
    how much more often than length alone has it, longer or shorter, whichever is better here."""
    logp = summed_logprobs(model, pairs.rows).astype(np.float64)
    lengths = pairs.rows["loss_weights"].sum(axis=1)
    reward = logp / lengths if config.kind in ("simpo", "orpo") else logp - pairs.rows["reference"][:, 0]
    ranks_B2 = np.tile([1, 2], (len(pairs), 1))
    sign = 1 if judged.pair_grades(lengths, ranks_B2).mean() >= 0.5 else -1
    gain = judged.gain_over(reward, sign * lengths, ranks_B2)
    return {
        "accuracy": float(judged.pair_grades(reward, ranks_B2).mean()),
        **{f"over_length_{name}": gain[name] for name in ("mean", "low", "high")},
        "margin": float(np.mean(reward[0::2] - reward[1::2])),
        "chosen_logprob": float(np.mean(logp[0::2])),
        "rejected_logprob": float(np.mean(logp[1::2])),
    }
