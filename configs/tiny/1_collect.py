"""jaxtrain collect configs/tiny/1_collect.py

The whole pipeline in little, to see it work and to try an idea: `jaxtrain run configs/tiny` takes a minute or
two on two cores and learns next to nothing. Here: web pages, a few files of Python's standard library and one
set of conversations. Result in five seconds: 1.2 MB of text in 152 documents, and 999 conversations.
"""

from pathlib import Path

from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.code import CodeSource
from jaxtrain.collect.run import CollectConfig
from jaxtrain.collect.web import WebSource

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = CollectConfig(
    sources=(
        WebSource(name="web", paths=("data/quickstart/web.warc.gz",), license="CC-BY-SA-3.0"),
        CodeSource(name="code", folder="stdlib", license="PSF-2.0", max_bytes=300_000),
        ChatSource(name="alpaca", paths=("data/quickstart/alpaca.json",), license="Apache-2.0"),
    ),
    out=f"{RUNS}/1_collect",
)
