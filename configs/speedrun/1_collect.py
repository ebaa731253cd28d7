"""jaxtrain collect configs/speedrun/1_collect.py

nanochat's hour in our stages: a model that talks from eight H100 or a v6e of eight chips, from the same data.
`jaxtrain run configs/speedrun --scale d20`, or d24; `--scale tiny` is all of it in little, from stand-ins.
What the scales differ in is in scales.toml, and what d20 and d24 take in 4_pretrain.py.

Here: shards of FineWeb-Edu, SmolTalk, and the training questions of MMLU and GSM8K, from the Hugging Face hub
to data/hub, 10 GB for d20. A download that breaks goes on where it stopped. This, clean and tokenize need no
accelerator: run them on any machine with cores, before eight are rented.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.run import CollectConfig
from jaxtrain.collect.source import Item, Step
from jaxtrain.collect.tables import TableSource
from jaxtrain.config import scaled
from jaxtrain.document import Conversation
from jaxtrain.formats.files import Unread
from jaxtrain.formats.rows import Row, rows
from jaxtrain.tasks.written import gsm8k_chat

scale = scaled(__file__)


@dataclass(frozen=True, kw_only=True)
class Solved(ChatSource):
    """Questions of MMLU and GSM8K as a user asks them, with their answers."""

    def read_file(self, path: Path, unread: Unread) -> Iterator[Item]:
        for number, row in enumerate(rows(path, unread, ("question", "choices", "answer")), 1):
            yield Step(f"row {number}", partial(self.solved, row))

    def solved(self, row: Row) -> Iterator[Conversation]:
        if "choices" in row:
            listed = [f"{letter}. {text}" for letter, text in zip("ABCD", row["choices"], strict=True)]
            question = "\n".join([row["question"], *listed, "Answer with the letter alone."])
            answer = "ABCD"[row["answer"]]
        else:
            # without the marks of a calculator, as <<3+4=7>>
            question, answer = gsm8k_chat(row).prompt, re.sub(r"<<.*?>>", "", row["answer"])
        yield from self._conversation({"question": question, "answer": answer})


def hub(repository: str, *files: str) -> tuple[str, ...]:
    return tuple(f"{scale.hub}/{repository}/resolve/main/{file}.parquet" for file in files)


config = CollectConfig(
    sources=(
        TableSource(
            name="fineweb_edu",
            paths=hub(
                "karpathy/fineweb-edu-100b-shuffle",
                *(f"shard_{number:05d}" for number in range(scale.shards)),
            ),
            folder="data/hub",
            license="ODC-By-1.0",
        ),
        ChatSource(
            name="smoltalk",
            paths=hub(
                "HuggingFaceTB/smol-smoltalk",
                *(f"data/train-{number:05d}-of-00004" for number in range(scale.smoltalk)),
            ),
            folder="data/hub",
            license="Apache-2.0",
        ),
        ChatSource(
            name="everyday",
            paths=hub("HuggingFaceTB/smoltalk", "data/everyday-conversations/train-00000-of-00001"),
            folder="data/hub",
            license="Apache-2.0",
        ),
        Solved(
            name="mmlu",
            paths=hub("cais/mmlu", "all/auxiliary_train-00000-of-00001"),
            folder="data/hub",
            license="MIT",
        ),
        Solved(
            name="gsm8k",
            paths=hub("openai/gsm8k", "main/train-00000-of-00001"),
            folder="data/hub",
            license="MIT",
        ),
    ),
    out=f"{scale.runs}/1_collect",
)
