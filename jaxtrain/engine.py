"""The one file that imports Daft: tasks over shards, embedded by default, the same code on a Ray cluster.

A task reads its shard from a file and writes what it makes beside it, so nothing large passes through here,
a killed run finds the shards that are done, and no result depends on the engine, on the number of workers or
on the order in which they finish.
"""

import json
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

os.environ.setdefault("DO_NOT_TRACK", "true")  # before the import: Daft sends usage data otherwise
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # Ray writes a token into the home folder otherwise

import daft
from daft import DataType, Series, col
from daft.exceptions import DaftCoreException

from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import track

EMBEDDED = "embedded"
Task = dict[str, Any]


def run_tasks(
    function: Callable[[Task], Task],
    tasks: Sequence[Task],
    engine: str = EMBEDDED,
    workers: int = 0,
    what: str = "tasks",
) -> list[Task]:
    """`function` of every task (values as in JSON), in the order of `tasks`.

    engine: `embedded` (processes of this machine), `ray` (a local Ray), or the `ray://` address of a
    cluster, whose machines must see the files that the tasks name under the same paths.
    workers: how many tasks at once; 0: one a core.
    """
    workers = min(workers or len(os.sched_getaffinity(0)), len(tasks))
    _use(engine)
    if engine == EMBEDDED and workers <= 1:
        return [function(task) for task in track(tasks, what)]

    @daft.cls(max_concurrency=workers, use_process=engine == EMBEDDED)
    class Worker:
        @daft.method.batch(return_dtype=DataType.string(), batch_size=1)
        def work(self, numbers: Series) -> list[str]:
            return [json.dumps(function(tasks[number])) for number in numbers.to_pylist()]

    frame = daft.from_pydict({"number": list(range(len(tasks)))})
    if engine != EMBEDDED:
        frame = frame.repartition(len(tasks), "number")  # a partition a task, so that workers share them
    done: dict[int, str] = {}
    rows = frame.select("number", Worker().work(col("number")).alias("result")).iter_rows()
    for row in track(rows, what, len(tasks)):
        done[row["number"]] = row["result"]
    return [json.loads(done[number]) for number in range(len(tasks))]


@cache
def _use(engine: str) -> None:
    """Choose Daft's runner; UserError where this process already has another, which Daft cannot change."""
    if engine not in (EMBEDDED, "ray") and not engine.startswith("ray://"):
        raise UserError(f"no engine {engine!r}; choose embedded, ray, or ray://HOST:PORT")
    if _use.cache_info().currsize:
        raise UserError(f"this process already runs on another engine than {engine!r}; start it again")
    if engine == EMBEDDED:
        daft.set_runner_native()
        return
    try:
        daft.set_runner_ray(None if engine == "ray" else engine)
    except (ImportError, DaftCoreException) as error:
        raise UserError(
            f"engine {engine!r} did not start ({error}); it needs pip install 'jaxtrain[cluster]'"
        ) from error
