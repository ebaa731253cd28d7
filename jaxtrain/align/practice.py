"""Tasks as they are practised: what is asked, and what an answer is paid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxtrain.align.rollout import AT_ONCE, Sampler
from jaxtrain.config import Stage
from jaxtrain.decode.dialogues import Dialogue, Played, graded, opening
from jaxtrain.model.config import ModelConfig
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Positive, Signed
from jaxtrain.runtime.progress import say
from jaxtrain.tasks import catalog
from jaxtrain.tasks.environment import Episode
from jaxtrain.tasks.task import DATA, Exercise, Task
from jaxtrain.tokenize.tokenizer import Tokenizer

Asked = tuple[Played, list[int]]
"""An item and the ids that it begins with."""


@dataclass(frozen=True, kw_only=True)
class PracticeConfig(Stage):
    """What the stages are told that practise tasks."""

    model: str
    """Folder of the model that answers: a finetune artifact; for GRPO the first policy and the reference."""
    data: str = DATA
    """Folder with the tasks' files; of GRPO also `hub`: fetched by the package `datasets` into data/hub."""
    rewards: dict[str, Signed] = field(default_factory=dict)
    """Weights of grades by name in the reward, for tasks that have such grades; none: as the tasks say."""
    longest_prompt: Count = 64
    """Tokens; items that ask more are left out, and counted."""
    max_new: Count = 64
    """Tokens of an answer at most."""
    longest_dialogue: int = 0
    """Tokens of a dialogue of several answers at most, all that was asked and replied with them; 0: of one
    answer."""
    temperature: Positive = 1.0
    """Of sampling, and of the log-probabilities that are learned from."""
    measured: Count = 256
    """Held-out items of each task answered, to measure what it is worth."""

    def sampler(self, tokenizer: Tokenizer, model: ModelConfig, at_once: int = AT_ONCE) -> Sampler:
        """How answers are drawn; UserError where they are longer than what the model was trained on."""
        limits = self.longest_prompt, self.max_new, self.temperature, at_once, self.longest_dialogue
        return Sampler(tokenizer, *limits).check(model)


@dataclass(frozen=True)
class Practice:
    """A task, its items that fit, and the weights of its grades in the reward."""

    task: Task
    practised: list[Asked]
    heldout: list[Asked]
    left_out: int
    """Items to practise that ask more than fits."""
    names: tuple[str, ...]
    """Of its grades."""
    weights: Mapping[str, float]
    prompts: int = 0
    """Items of a round."""

    def judged(self, asked: Sequence[Asked], played: Sequence[Dialogue]) -> dict[str, np.ndarray]:
        """Grades of the dialogues by name, and their weighted sum as `paid`; float64 [items]."""
        grades = graded([item for item, _ in asked], played)
        return grades | {"paid": sum(weight * grades[name] for name, weight in self.weights.items())}


def read(
    config: PracticeConfig, tasks: Sequence[str], tokenizer: Tokenizer, prompts: Sequence[int]
) -> list[Practice]:
    """The tasks' items with the ids that they begin with; UserError where one is none to practise.

    prompts: items of a round, of each task.
    """
    each = zip(tasks, prompts, strict=True)
    found = [_read(config, catalog.find(name), tokenizer, count) for name, count in each]
    known = {name for one in found for name in one.names}
    if unknown := sorted(set(config.rewards) - known):
        raise UserError(f"rewards: no task has a grade {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return found


def _read(config: PracticeConfig, task: Task, tokenizer: Tokenizer, prompts: int) -> Practice:
    practised, heldout = task.load(config.data, split="practice"), task.load(config.data, config.measured)
    first = practised[0]
    if not (isinstance(first, Episode) or (isinstance(first, Exercise) and first.chat)):
        raise UserError(
            f"task {task.name} does not ask in the chat template (Exercise(chat=True), or Episode): it can "
            "be measured and not practised"
        )
    names = list(first.graders) if isinstance(first, Exercise) else ["reward"]
    weights = {name: weight for name, weight in config.rewards.items() if name in names}
    weights = weights or dict(task.reward) or {task.metric: 1.0}
    if unknown := sorted({*weights, task.metric} - set(names)):
        raise UserError(f"task {task.name} has no grade {unknown[0]!r}; it has {', '.join(names)}")
    fitting = [
        [(item, ids) for item in items if len(ids := opening(item, tokenizer)) <= config.longest_prompt]
        for items in (practised, heldout)
    ]
    if not all(fitting):
        most = config.longest_prompt
        raise UserError(f"task {task.name} asks nothing of at most {most} tokens; raise longest_prompt")
    left_out = len(practised) - len(fitting[0])
    found = f"{len(fitting[0])} items to practise ({left_out} too long), {len(fitting[1])} to measure on"
    say(f"align: {task.name}: {found}")
    return Practice(task, *fitting, left_out, tuple(names), weights, prompts)


def divided(prompts: int, shares: Sequence[float]) -> list[int]:
    """Prompts of each task in a round, by largest remainders; UserError where one has none."""
    exact = prompts * np.array(shares) / sum(shares)
    found = exact.astype(int)
    found[np.argsort(found - exact, kind="stable")[: prompts - found.sum()]] += 1
    if found.min() < 1:
        raise UserError(f"{prompts} prompts a round leave a task none; raise prompts, or its share")
    return found.tolist()
