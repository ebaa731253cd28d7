"""The stage: train the tokenizer on what clean kept, then encode documents, held-out text, conversations.

A conversation that the template refuses, or in which the assistant says nothing, is dropped; the counts and
the screen say how many and why.
"""

import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow.compute as pc

from jaxtrain import artifact
from jaxtrain.config import Stage
from jaxtrain.document import parquet, read_rows, source_files
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count
from jaxtrain.runtime.progress import say, track
from jaxtrain.tokenize.records import KINDS, write_source
from jaxtrain.tokenize.tokenizer import BytePairTokenizer, Tokenizer, train

CONVERSATION_SHARE = 0.1  # of the sample that BPE is trained on: chat is what the model will write


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig(Stage):
    """Train a tokenizer and encode an artifact of clean with it."""

    VERSION: ClassVar[int] = 2

    documents: str
    """Folder of a finished clean artifact."""
    tokenizer: str = ""
    """Encode with this one and train none: an OpenAI encoding (gpt2, r50k_base, p50k_base, cl100k_base,
    o200k_base), or a folder with a tokenizer of this project or a Hugging Face `tokenizer.json`."""
    template: str = ""
    """Chat template in place of that of a Hugging Face tokenizer: chatml, llama3, qwen, gemma, plain, or a
    Jinja file."""
    date: str = ""
    """What a template that asks for today's date is told, YYYY-MM-DD; empty: as the tokenizer says, or
    2024-07-26. The model is spoken to with the same date."""
    vocab_size: int = 4096
    """Number of ids of the tokenizer to train, the seven special tokens included."""
    sample_bytes: Count = 50_000_000
    """UTF-8 bytes of text that BPE is trained on, in the proportions of `mixture.json`, conversations about a
    tenth; a source that has less than its share gives all it has."""


def run(config: TokenizeConfig) -> Path:
    """Write the artifact of docs/formats.md, section 3."""
    artifact.require(config.documents, "clean")
    inputs = {"documents": config.documents}
    if Path(config.tokenizer).is_dir() and config.tokenizer:
        inputs["tokenizer"] = config.tokenizer
    return artifact.produce(config, inputs=inputs, write=lambda folder: _write(config, folder))


def _write(config: TokenizeConfig, folder: Path) -> artifact.Counts:
    clean = Path(config.documents)
    mixture = json.loads((clean / "mixture.json").read_text())
    sources = {path.stem for path in source_files(clean / "documents")}
    if missing := sorted(set(mixture) - sources):
        raise UserError(f"{clean}: mixture.json names {missing}, which documents/ lacks; run clean again")
    if unused := sorted(sources - set(mixture)):
        say(f"tokenize: not in mixture.json, so encoded but not trained on: {', '.join(unused)}")
    sample = Counter[str]()
    texts = _sample(clean, mixture, config.sample_bytes, sample)
    tokenizer = _given(config) or train(texts, config.vocab_size)
    tokenizer.save_in(folder)
    shutil.copyfile(clean / "mixture.json", folder / "mixture.json")
    counts: artifact.Counts = {"vocab_size": tokenizer.vocab_size, "sample_bytes": dict(sample)}
    for kind in KINDS:
        counts[kind] = {}
        for path in source_files(clean / kind):
            counts[kind][path.stem] = write_source(path, folder / kind / path.stem, tokenizer)
            shown = {name: value for name, value in counts[kind][path.stem].items() if value}
            say(f"tokenize: {kind}/{path.stem}: " + ", ".join(f"{name} {shown[name]}" for name in shown))
    return counts


def _given(config: TokenizeConfig) -> Tokenizer | None:
    """The tokenizer that the config names, if it does, with the template that it names."""
    name = config.tokenizer
    found = None
    if name:
        found = Tokenizer.load(name) if Path(name).is_dir() else BytePairTokenizer.openai(name)
    if not (config.template or config.date):
        return found
    from jaxtrain.tokenize.chat import named
    from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer

    if not isinstance(found, HuggingFaceTokenizer):
        raise UserError(
            "template and date are for a Hugging Face tokenizer; name its folder in `tokenizer`, or leave "
            "them out"
        )
    found = named(found, config.template) if config.template else found
    return dataclasses.replace(found, date=config.date or found.date)


def _sample(clean: Path, mixture: dict[str, float], size: int, taken: Counter[str]) -> Iterator[str]:
    """Texts for BPE: of each source its share of `size` bytes, or all it has; counts the bytes in `taken`.

    A record is taken when the hash of its id falls below the share wanted: spread over the source, stable.
    """
    chats = source_files(clean / "conversations")
    shares = {clean / "documents" / f"{source}.parquet": weight for source, weight in mixture.items()}
    shares |= {path: CONVERSATION_SHARE / len(chats) for path in chats}
    for path, share in shares.items():
        there = _text_bytes(path)
        wanted = size * share / sum(shares.values())
        for row in track(read_rows(path), f"tokenize: reading {path.stem}"):
            draw = int.from_bytes(hashlib.blake2b(row["id"].encode(), digest_size=8).digest()) / 2**64
            if draw * there < wanted:
                for text in KINDS[path.parent.name].texts(row):
                    taken[f"{path.parent.name}/{path.stem}"] += len(text.encode())
                    yield text


def _text_bytes(path: Path) -> int:
    """UTF-8 bytes of all texts of a Parquet file."""
    total = 0
    with parquet(path) as file:
        column = "text" if "text" in file.schema_arrow.names else "messages"
        for batch in file.iter_batches(columns=[column]):
            texts = batch.column(0)
            if column == "messages":
                texts = pc.struct_field(pc.list_flatten(texts), "content")
            total += pc.sum(pc.binary_length(texts)).as_py() or 0
    return total
