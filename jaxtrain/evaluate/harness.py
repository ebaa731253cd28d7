"""EleutherAI's lm-evaluation-harness on a model of this project. Needs the extra `eval` (lm-eval, no torch).

Its tasks, prompts and metrics are its own; likelihoods and answers come from here, batched and on the mesh
that is set. Text is tokenized as lm-eval's `hf` model does it.
"""

from collections.abc import Sequence
from typing import Any

from lm_eval import simple_evaluate  # pyrefly: ignore[missing-import]
from lm_eval.api.instance import Instance  # pyrefly: ignore[missing-import]
from lm_eval.api.model import TemplateLM  # pyrefly: ignore[missing-import]
from lm_eval.tasks import TaskManager  # pyrefly: ignore[missing-import]
from lm_eval.utils import (  # pyrefly: ignore[missing-import]
    get_rolling_token_windows,
    make_disjoint_window,
)

from jaxtrain.evaluate.choices import Scorer
from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.task import Exercise

Ids = list[int]


class HarnessModel(TemplateLM):
    """What lm-eval asks of a model."""

    def __init__(self, scorer: Scorer):
        super().__init__()
        self.scorer = scorer

    @property
    def eot_token_id(self) -> int:
        return self.scorer.tokenizer.eos

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context."""
        return self.scorer.tokenizer.bos

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> Ids:
        start = [] if add_special_tokens is False else self.scorer.start
        return [*start, *self.scorer.tokenizer.encode(string)]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], Ids, Ids]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """A text that does not fit loses its beginning; the last token is no input, so one more fits."""
        room = self.scorer.length + 1
        pairs = []
        for _, context, continuation in requests:
            continuation = continuation[-(room - 1) :]
            pairs.append((context[-(room - len(continuation)) :], continuation))
        return self._likelihoods(pairs)

    def _likelihoods(self, pairs: list[tuple[Ids, Ids]]) -> list[tuple[float, bool]]:
        found = self.scorer.likelihoods(pairs, "lm-eval")
        return [(likelihood.nats, likelihood.is_greedy) for likelihood in found]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, cut into pieces of `length` that each see as much before them as fits."""
        pairs, counts = [], []
        for request in requests:
            ids = self.scorer.tokenizer.encode(request.args[0])
            pieces = get_rolling_token_windows(ids, self.prefix_token_id, self.scorer.length, context_len=1)
            pairs += [make_disjoint_window(piece) for piece in pieces]
            counts.append(len(pairs) - sum(counts))
        nats = iter(self._likelihoods(pairs))
        return [sum(next(nats)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        exercises = []
        for request in requests:
            prompt, options = request.args
            if options.get("do_sample") or options.get("temperature", 0.0) > 0:
                raise UserError("lm-eval asks for sampling; only greedy answers are supported")
            stops = options.get("until") or []
            stops = (stops,) if isinstance(stops, str) else tuple(stops)
            most = options.get("max_gen_toks") or options.get("max_tokens") or 256
            exercises.append(Exercise(prompt=prompt, graders={}, stops=stops, tokens=most))
        return [one.said for one in self.scorer.dialogues(exercises, "lm-eval")]


def run(scorer: Scorer, tasks: Sequence[str], include: str, items: int) -> list[dict[str, Any]]:
    """A row for each metric of each task. include: a folder of task files that come before lm-eval's own."""
    manager = TaskManager(include_path=include or None)
    if unknown := [task for task in tasks if task not in manager.all_tasks]:
        raise UserError(f"lm-eval has no task {', '.join(unknown)}; `lm-eval ls tasks` lists them")
    found = simple_evaluate(
        HarnessModel(scorer),
        tasks=list(tasks),
        limit=items,
        task_manager=manager,
        log_samples=False,
        bootstrap_iters=1000,  # for errors that have no formula; 0 means no errors at all
    )
    assert found is not None, "there is one process"
    rows = []
    for task, metrics in found["results"].items():
        for name, value in metrics.items():
            metric, _, how = name.partition(",")
            if not how or metric.endswith("_stderr"):
                continue
            error = metrics.get(f"{metric}_stderr,{how}")
            rows.append(
                {
                    "task": task,
                    "metric": metric if how == "none" else f"{metric} ({how})",
                    "value": float(value),
                    "standard_error": error if isinstance(error, float) else None,
                    "items": found["n-samples"][task]["effective"] if task in found["n-samples"] else None,
                    "shots": found["n-shot"].get(task),
                    "version": found["versions"].get(task),
                }
            )
    return rows
