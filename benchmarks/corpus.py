"""Text files -> an artifact of clean, to measure tokenize and feed on.

.venv/bin/python benchmarks/corpus.py OUT NAME=PATTERN ...

Each NAME is a source; PATTERN names text files (a document each) or JSON lines with a `text`, compressed or
not. Works of more than 100 kB are cut into sections as collect cuts books. Every 50th document is held out.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from jaxtrain.artifact import input_fingerprint
from jaxtrain.collect.books import sections
from jaxtrain.document import Document, record_id, write_records
from jaxtrain.formats.files import Unread, find, json_records, open_bytes
from jaxtrain.runtime.progress import say

BOOK = 100_000  # bytes


def texts(name: str, pattern: str) -> Iterator[str]:
    for path in find(name, (pattern,)):
        if ".json" in path.name:
            whole = [record.get("text") or "" for record in json_records(path, Unread())]
        else:
            with open_bytes(path) as file:
                whole = [file.read().decode("utf-8", errors="ignore")]
        for text in whole:
            yield from sections(text) if len(text) > BOOK else [text]


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", nargs="+")
    arguments = parser.parse_args()
    weights = {}
    for name, pattern in (source.split("=", 1) for source in arguments.sources):
        found = sorted({text for text in texts(name, pattern) if text.strip()})
        documents = [
            Document(id=record_id(name, str(n)), text=text, source=name) for n, text in enumerate(found)
        ]
        kept = [document for n, document in enumerate(documents) if n % 50]
        write_records(arguments.out / "documents" / f"{name}.parquet", Document, kept)
        write_records(arguments.out / "heldout" / f"{name}.parquet", Document, documents[::50])
        weights[name] = sum(len(document.text.encode()) for document in kept)
        say(f"{name}: {len(kept)} documents, {weights[name] / 1e6:.1f} MB")
    total = sum(weights.values())
    mixture = {name: size / total for name, size in weights.items()}
    (arguments.out / "mixture.json").write_text(json.dumps(mixture))
    manifest = {"stage": "clean", "fingerprint": input_fingerprint(arguments.out / "documents")}
    (arguments.out / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    main()
