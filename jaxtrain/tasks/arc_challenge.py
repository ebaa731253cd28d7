"""ARC-Challenge: the questions of ARC that word counts do not answer (Clark et al. 2018, arXiv:1803.05457).

Prompt and metric are those of `arc_easy`.
"""

from jaxtrain.tasks.arc_easy import parse
from jaxtrain.tasks.task import Task

task = Task(
    name="arc_challenge",
    version=1,
    metric="accuracy_per_byte",
    path="benchmarks/arc_challenge.jsonl.gz",
    parse=parse,
    hub=("allenai/ai2_arc", "ARC-Challenge", "test"),
)
