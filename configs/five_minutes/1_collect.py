"""jaxtrain collect configs/five_minutes/1_collect.py

How good a model do five minutes make, by bits per byte of held-out text? The budget of
karpathy/autoresearch, on one H100 (`--scale h100`) and, in little, on two cores (`jaxtrain run
configs/five_minutes`). Beside PyTorch, under a clock and with several seeds: benchmarks/five_minutes.py.

Here: ten shards of ClimbMix from the Hugging Face hub to data/hub, 900 MB; or the novels, the encyclopedia
and the web pages of data/quickstart (its SOURCES.md says whose they are).
"""

from jaxtrain.collect.books import BookSource
from jaxtrain.collect.run import CollectConfig
from jaxtrain.collect.tables import TableSource
from jaxtrain.collect.web import WebSource
from jaxtrain.collect.wiki import WikiSource
from jaxtrain.config import scaled

scale = scaled(__file__)
CLIMBMIX = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"

sources = {
    "shipped": (
        WebSource(name="web", paths=("data/quickstart/web.warc.gz",), license="CC-BY-SA-3.0"),
        WikiSource(name="wiki", paths=("data/quickstart/wiki.xml.bz2",), license="CC-BY-SA-3.0"),
        BookSource(name="books", paths=("data/quickstart/books.jsonl.xz",), license="public-domain"),
    ),
    "hub": (
        TableSource(
            name="climbmix",
            paths=tuple(f"{CLIMBMIX}/shard_{number:05d}.parquet" for number in range(10)),
            folder="data/hub",
            license="CC-BY-NC-4.0",
        ),
    ),
}

config = CollectConfig(sources=sources[scale.text], out=f"{scale.runs}/1_collect")
