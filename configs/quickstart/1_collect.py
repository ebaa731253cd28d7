"""jaxtrain collect configs/quickstart/1_collect.py

Reads the documents in data/quickstart (data/quickstart/SOURCES.md says whose they are) and the standard
library of your Python (which files, and so the counts of `code`, depend on its version). Result in about ten
seconds: 12 MB of text in some 730 documents of four sources, and 1,999 conversations.
"""

from pathlib import Path

from jaxtrain.collect.books import BookSource
from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.code import CodeSource
from jaxtrain.collect.run import CollectConfig
from jaxtrain.collect.web import WebSource
from jaxtrain.collect.wiki import WikiSource

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = CollectConfig(
    sources=(
        WebSource(name="web", paths=("data/quickstart/web.warc.gz",), license="CC-BY-SA-3.0"),
        WikiSource(name="wiki", paths=("data/quickstart/wiki.xml.bz2",), license="CC-BY-SA-3.0"),
        CodeSource(name="code", folder="stdlib", license="PSF-2.0", max_bytes=4_000_000),
        BookSource(name="books", paths=("data/quickstart/books.jsonl.xz",), license="public-domain"),
        ChatSource(
            name="dolly", paths=("data/quickstart/dolly_hhrlhf.jsonl",), license="CC-BY-SA-3.0 AND MIT"
        ),
        ChatSource(name="alpaca", paths=("data/quickstart/alpaca.json",), license="Apache-2.0"),
    ),
    out=f"{RUNS}/1_collect",
)
