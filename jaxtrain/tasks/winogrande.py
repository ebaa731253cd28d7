"""WinoGrande: which of two names fills a blank (Sakaguchi et al. 2019, arXiv:1907.10641), without examples.

    Terry tried to bake the eggplant in the toaster oven but the [eggplant | toaster] was too big.

Partial evaluation (Trinh and Le 2018, arXiv:1806.02847), as in lm-eval: each option is put into the blank and
what follows, " was too big.", is scored, so that both options are judged on the same words.
"""

from typing import Any

from jaxtrain.tasks.task import Item, Task


def parse(row: dict[str, Any]) -> Item:
    """`sentence` with one `_`, `option1`, `option2` and `answer`, "1" or "2"."""
    before, after = row["sentence"].split("_")
    contexts = (before + row["option1"], before + row["option2"])
    return Item(
        contexts=contexts,
        continuations=(f" {after.strip()}",) * 2,
        answer=("1", "2").index(row["answer"]),
        unconditional="",
    )


task = Task(
    name="winogrande",
    version=1,
    metric="accuracy",
    path="benchmarks/winogrande.jsonl.gz",
    parse=parse,
    hub=("allenai/winogrande", "winogrande_xl", "validation"),
)
