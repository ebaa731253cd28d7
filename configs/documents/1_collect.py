"""jaxtrain collect configs/documents/1_collect.py

Your own documents, without conversations: a model that continues text. Put your files into the folder
`documents` (plain text, Markdown, PDF, EPUB, in folders as you like). A table of texts is a second source:
TableSource(name="posts", paths=("posts.csv",), text="body"). Then `jaxtrain run configs/documents`, and
`jaxtrain report runs/documents`.
"""

from pathlib import Path

from jaxtrain.collect.run import CollectConfig
from jaxtrain.collect.works import TextSource

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = CollectConfig(
    sources=(TextSource(name="texts", paths=("documents",)),),
    out=f"{RUNS}/1_collect",
)
