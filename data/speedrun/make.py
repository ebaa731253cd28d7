"""Stand-ins for what configs/speedrun reads of the hub, so that its smallest scale runs without a network.

`python data/speedrun/make.py` makes them, at the hub's paths and with the hub's columns. None of it is the
hub's data: documents are cut from the novels of data/quickstart (public domain), conversations are rows of
its alpaca.json (Apache-2.0, answers written by a model), and the questions are sums, made here (CC0).

    karpathy, HuggingFaceTB, cais, openai   documents, conversations, questions to learn from
    benchmarks                              questions to practise and to be asked; none is learned from
"""

import json
import lzma
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
GIVEN = HERE.parent / "quickstart"
PEOPLE = ("Ada", "Ben", "Carla", "Dan", "Eve", "Finn", "Gita", "Hugo")
THINGS = ("apples", "books", "candles", "drums", "eggs", "flags", "grapes", "hats")
PLACES = ("in the kitchen", "at the market", "on the train", "by the river", "in the attic", "at school")
Row = dict[str, Any]


def documents(count: int, size: int) -> list[Row]:
    """Passages of about `size` characters, taken from all of the novels in turn."""
    with lzma.open(GIVEN / "books.jsonl.xz", "rt", encoding="utf-8") as lines:
        novels = [json.loads(line)["text"] for line in lines]
    texts = []
    for number in range(count):
        novel = novels[number % len(novels)]
        begin = novel.index("\n\n", len(novel) // 4 + number * size) + 2
        texts.append(novel[begin : novel.index("\n\n", begin + size)])
    return [{"text": text} for text in texts]


def conversations(first: int, count: int) -> list[Row]:
    """Short questions of alpaca.json with their answers, from the `first` on."""
    rows = json.loads((GIVEN / "alpaca.json").read_text("utf-8"))
    short = (row for row in rows if len(row["instruction"] + row["output"]) < 400 and not row["input"])
    return [
        {
            "messages": [
                {"content": row["instruction"], "role": "user"},
                {"content": row["output"], "role": "assistant"},
            ],
            "source": "stand-in",
        }
        for row in islice(short, first, first + count)
    ]


def word_problem(random: Random) -> Row:
    """In the form of GSM8K: the working, then the result behind ####."""
    one, other = random.sample(PEOPLE, 2)
    thing, place = random.choice(THINGS), random.choice(PLACES)
    a, b, c = (random.randrange(2, 20) for _ in range(3))
    question = (
        f"{one} finds {a} {thing} {place} and buys {b} more. {other} brings {c} times as many. "
        f"How many {thing} does {other} bring?"
    )
    working = f"{one} has {a}+{b}=<<{a}+{b}={a + b}>>{a + b} {thing}.\n"
    result = (a + b) * c
    working += f"{other} brings {a + b}*{c}=<<{a + b}*{c}={result}>>{result} {thing} {place}."
    return {"question": question, "answer": f"{working}\n#### {result}"}


def choice(random: Random) -> Row:
    """In the form of MMLU: four choices, and the index of the right one."""
    one, thing, place = random.choice(PEOPLE), random.choice(THINGS), random.choice(PLACES)
    a, b = random.randrange(2, 40), random.randrange(2, 40)
    choices = [a + b, a + b + random.randrange(1, 9), abs(a - b) + 1, a + b + random.randrange(10, 19)]
    random.shuffle(choices)
    return {
        "question": f"{one} counts {a} {thing} {place}, then {b} others. How many is that?",
        "subject": "elementary_mathematics",
        "choices": [str(choice) for choice in choices],
        "answer": choices.index(a + b),
    }


def arc(random: Random) -> Row:
    """The same in the form of ARC."""
    row = choice(random)
    choices = {"text": row["choices"], "label": ["A", "B", "C", "D"]}
    return {"question": row["question"], "choices": choices, "answerKey": "ABCD"[row["answer"]]}


def main() -> None:
    random = Random(23)
    tables = {
        "karpathy/fineweb-edu-100b-shuffle/resolve/main/shard_00000": documents(60, 1200),
        "HuggingFaceTB/smol-smoltalk/resolve/main/data/train-00000-of-00004": conversations(0, 100),
        "HuggingFaceTB/smoltalk/resolve/main/data/everyday-conversations/train-00000-of-00001": conversations(
            100, 40
        ),
        "cais/mmlu/resolve/main/all/auxiliary_train-00000-of-00001": [choice(random) for _ in range(60)],
        "openai/gsm8k/resolve/main/main/train-00000-of-00001": [word_problem(random) for _ in range(60)],
    }
    for name, rows in tables.items():
        file = HERE / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), file, compression="zstd", compression_level=19)
    asked = {
        "gsm8k_train": [word_problem(random) for _ in range(32)],
        "gsm8k_test": [word_problem(random) for _ in range(16)],
        "mmlu_dev": [choice(random) for _ in range(5)],
        "mmlu_test": [choice(random) for _ in range(16)],
        "arc_easy": [arc(random) for _ in range(16)],
        "arc_challenge": [arc(random) for _ in range(16)],
    }
    for name, rows in asked.items():
        file = HERE / "benchmarks" / f"{name}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


if __name__ == "__main__":
    main()
