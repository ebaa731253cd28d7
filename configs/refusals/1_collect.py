"""jaxtrain collect configs/refusals/1_collect.py

When to decline: `jaxtrain run configs/refusals` fine-tunes the quickstart's model on the quickstart's
conversations and 480 written for this (data/refusals), half harmful requests that are declined, half harmless
ones in the same words that are answered, and measures refusals before and after. It needs a finished
`jaxtrain run configs/quickstart`. Of the conversations that fit a row of 256 tokens they are 27 %, of their
tokens 15 %. `python data/refusals/make.py` wrote the files.
"""

from pathlib import Path

from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.run import CollectConfig
from jaxtrain.collect.web import WebSource

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = CollectConfig(
    sources=(
        WebSource(name="web", paths=("data/quickstart/web.warc.gz",), license="CC-BY-SA-3.0"),
        ChatSource(
            name="dolly", paths=("data/quickstart/dolly_hhrlhf.jsonl",), license="CC-BY-SA-3.0 AND MIT"
        ),
        ChatSource(name="alpaca", paths=("data/quickstart/alpaca.json",), license="Apache-2.0"),
        ChatSource(name="refusals", paths=("data/refusals/conversations.jsonl",), license="CC0-1.0"),
    ),
    out=f"{RUNS}/1_collect",
)
