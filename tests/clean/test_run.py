"""The whole stage over a small corpus of real text in which every kind of fault is planted."""

import dataclasses
import json
import lzma
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxtrain.classify import linear
from jaxtrain.clean import (
    C4,
    C4Lines,
    Classifier,
    Gibberish,
    License,
    Normalize,
    Personal,
    Quotes,
    chat,
    prose,
)
from jaxtrain.clean.run import CleanConfig, run
from jaxtrain.document import Conversation, Document, read_records, read_rows, record_id, write_records
from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.overlap import plain_words, read_items

DATA = Path(__file__).parents[2] / "data/quickstart"
BENCHMARK = DATA / "benchmarks/arc_easy.jsonl.gz"
CHAPTER = 8000  # characters
QUOTES = Quotes((str(BENCHMARK),))


def document(source: str, key: str, text: str, **more: Any) -> Document:
    return Document(id=record_id(source, key), text=text, source=source, **more)


def conversation(key: str, *turns: str) -> Conversation:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return Conversation(id=record_id("chat", key), messages=messages, source="chat")


RECIPE = (
    "Boil the beans for an hour, add salt, oil and the chopped onion, and let it all stand until evening."
)


def answered(question: str) -> Conversation:
    return conversation(question, question, f"The answer to {question.lower()} is in the book on the table.")


@pytest.fixture(scope="module")
def question() -> str:
    return next(item for item in read_items(BENCHMARK) if len(plain_words(item)) > 15)


@pytest.fixture(scope="module")
def collected(tmp_path_factory, question) -> Path:
    with lzma.open(DATA / "books.jsonl.xz", "rt") as lines:
        novels = [json.loads(line)["text"] for _, line in zip(range(4), lines, strict=False)]
    cut = [
        (i, j, novel[j : j + CHAPTER]) for i, novel in enumerate(novels) for j in range(0, 160_000, CHAPTER)
    ]
    licenses = ("public-domain", "public-domain", "CC-BY-4.0")
    books = [
        document("books", f"{i}:{j}", text, url=f"book:{i}/{j // (2 * CHAPTER)}", license=licenses[i])
        for i, j, text in cut
        if i < 3
    ]
    pages = [text for i, _, text in cut if i == 3]
    planted = [
        document("web", "quoted", f"{pages[0][:3000]}\n\n{question}\n\n{pages[1][:1000]}", url="web:quoted"),
        document("web", "copied", books[0].text.replace(",", ";"), url="web:copied"),
        document("web", "edited", books[1].text.replace("the only", "some"), url="web:edited"),
        document(
            "web", "german", "Alle Menschen sind frei und gleich an Würde und Rechten. " * 9, url="web:german"
        ),
        document("web", "blank", " \u200b\n", url="web:blank"),
        document("web", "short", "Welcome to the page of the society.", url="web:short"),
        document("web", "mail", pages[2] + " Write to jane@uni-bonn.de.", url="web:mail"),
    ]
    web = [document("web", str(i), page, url=f"web:{i}") for i, page in enumerate(pages[3:])] + planted
    chats = [
        *(answered(f"Where is town number {i} of the old country, and who lives there?") for i in range(10)),
        conversation("a", "Where is it?", "It is here."),
        conversation("b", "Where is it?", "It is here!"),
        conversation("c", "Where is it?", " "),
        conversation("d", "Where is it?"),
        conversation("e", "Where is it?", "As an AI language model, I cannot know where it is."),
        conversation("f", question, "The second."),
        conversation(
            "g", "Wo ist die Katze heute Abend, und wer hat sie zuletzt gesehen?", "Sie liegt im Garten."
        ),
        conversation(
            "h", f"{pages[2][:1000]} Who is it about?", "It is about two brothers who built a mill."
        ),
        conversation(
            "i", f"{pages[2][:1000]} When is it?", "It begins in a wet spring and ends with the frost."
        ),
        conversation("j", f"{pages[2][:1000]} Is it old?", "Yes."),
        conversation("k", f"{pages[2][:1000]} Is it a story?", "Yes."),
        conversation("l", "How do I cook the beans my mother gave me?", RECIPE),
        conversation("m", "How do I cook the beans my mother gave me?", f"{RECIPE} Eat it warm."),
    ]
    folder = tmp_path_factory.mktemp("runs") / "1_collect"
    write_records(folder / "documents/books.parquet", Document, books)
    write_records(folder / "documents/web.parquet", Document, web)
    write_records(folder / "conversations/chat.parquet", Conversation, chats)
    (folder / "manifest.json").write_text(json.dumps({"stage": "collect", "fingerprint": "0"}))
    return folder


@pytest.fixture(scope="module")
def config(collected) -> CleanConfig:
    return CleanConfig(
        documents=str(collected),
        filters={
            "books": (*prose("en"), QUOTES),
            "web": (*prose("en"), QUOTES),
            "chat": (*chat("en"), QUOTES),
        },
        mixture={"books": 3, "web": 1},
        heldout_bytes=40_000,
        out=str(collected.with_name("2_clean")),
    )


@pytest.fixture(scope="module")
def cleaned(config) -> Path:
    return run(config)


def rows(folder: Path, part: str) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / part).glob("*.parquet")) for row in read_rows(path)]


def reasons(cleaned: Path, source: str, keys: list[str]) -> list[str]:
    dropped = {row["id"]: row["reason"] for row in rows(cleaned, "dropped")}
    return [dropped.get(record_id(source, key), "") for key in keys]


def test_each_planted_document_is_dropped_for_its_own_reason(cleaned):
    keys = ["quoted", "copied", "edited", "german", "blank", "short", "mail"]
    expected = [
        "benchmark overlap",
        "exact duplicate",
        "near duplicate",
        "language",
        "empty",
        "too few words",
        "",
    ]
    assert reasons(cleaned, "web", keys) == expected


def test_each_planted_conversation_is_dropped_for_its_own_reason(cleaned):
    expected = ["", "exact duplicate", "empty turn", "no answer at the end", "refusal boilerplate"]
    assert reasons(cleaned, "chat", list("abcdefg")) == [*expected, "benchmark overlap", "language"]
    assert len(rows(cleaned, "conversations")) == 16


def test_near_duplicates_among_conversations_answer_alike(cleaned):
    """Questions about one passage stay, also where the same word answers them; an edited copy goes."""
    assert reasons(cleaned, "chat", list("hijk")) == [""] * 4
    assert sorted(reasons(cleaned, "chat", list("lm"))) == ["", "near duplicate"]


def test_the_census_counts_what_the_files_hold(cleaned, collected):
    census = json.loads((cleaned / "census.json").read_text())
    kept, before = rows(cleaned, "documents"), rows(collected, "documents")
    dropped = Counter(row["reason"] for row in rows(cleaned, "dropped") if row["source"] == "web")
    left = {step["step"]: step["left"]["web"] for step in census["steps"]}
    pages = [row for row in before if row["source"] == "web"]
    assert left["collected"] == [len(pages), sum(len(row["text"].encode()) for row in pages)]
    assert left["examined"][0] - left["exact duplicates removed"][0] == dropped["exact duplicate"] == 1
    assert left["exact duplicates removed"][0] - left["near duplicates removed"][0] == 1
    web = [row for row in kept if row["source"] == "web"]
    assert left["kept"] == [len(web), sum(len(row["text"].encode()) for row in web)]
    assert census["languages"]["web"]["de"] == [1, len(pages[-4]["text"].encode()), 0, 0]
    assert census["languages"]["web"]["en"][2:] == left["kept"]
    for signal in ("words", "hash_ratio"):
        edges, histogram = census["bins"][signal], census["signals"]["web"][signal]
        assert histogram["after"] == np.histogram([row[signal] for row in web], edges)[0].tolist()
        assert sum(histogram["before"]) == len(pages) and "chat" not in census["signals"]
    assert census["limits"]["web"]["words"] == [50, 100_000]
    copies = {(of["kind"], of["reason"]): of for of in census["copies"]}
    assert copies["documents", "near duplicate"]["sizes"] == {"2": 1}
    largest = copies["documents", "near duplicate"]["largest"][0]
    assert (largest["id"], largest["sources"]) == (record_id("books", "0:8000"), {"books": 1, "web": 1})
    text = next(
        row["text"]
        for row in rows(cleaned, "documents") + rows(cleaned, "heldout")
        if row["id"] == largest["id"]
    )
    assert largest["excerpt"].startswith(" ".join(text.split())[:100])
    assert copies["conversations", "near duplicate"]["copies"] == 1


def test_every_record_is_kept_held_out_or_dropped_and_the_funnel_counts_it(cleaned, collected):
    funnel = json.loads((cleaned / "funnel.json").read_text())
    assert set(funnel) == {"books", "web", "chat"}
    for source, counts in funnel.items():
        kind = "conversations" if source == "chat" else "documents"
        before = Counter(row["id"] for row in read_rows(collected / kind / f"{source}.parquet"))
        parts = {
            part: [r for r in rows(cleaned, part) if r["source"] == source]
            for part in (kind, "heldout", "dropped")
        }
        assert before == Counter(row["id"] for part in parts.values() for row in part)
        assert counts["in"] == before.total()
        assert (counts["kept"], counts["heldout"]) == (len(parts[kind]), len(parts["heldout"]))
        assert counts["dropped"] == Counter(row["reason"] for row in parts["dropped"])
        if kind == "documents":
            assert counts["bytes_kept"] == sum(len(row["text"].encode()) for row in parts[kind])
            assert counts["bytes_heldout"] == sum(len(row["text"].encode()) for row in parts["heldout"])


def test_licenses_and_gibberish_are_limits_with_counts(config, collected, tmp_path):
    """Two of three books have a license on the list; of the pages those stay that read like the books."""
    books = [row["text"] for row in read_rows(collected / "documents/books.parquet")]
    (tmp_path / "books.txt").write_text("\n".join(books), encoding="utf-8")
    reference = (str(tmp_path / "books.txt"),)
    (tmp_path / "topic").mkdir()
    guess = linear.Classifier(("art", "law", "sea"), np.zeros((8, 3), np.float32), np.float32([0, 1, 0]))
    linear.save(guess, tmp_path / "topic", linear.Training())
    topic = Classifier("topic", str(tmp_path / "topic"))
    filters = {
        "books": (License(("public-domain", "MIT")), *prose("en"), topic),
        "web": (Normalize(), C4Lines(), C4(), Gibberish(reference, (None, 11.0)), topic, Personal()),
    }
    folder = run(dataclasses.replace(config, filters=filters, out=str(tmp_path / "clean")))
    funnel = json.loads((folder / "funnel.json").read_text())
    assert funnel["books"]["dropped"]["license"] == 20
    kept = funnel["books"]["kept"]
    assert funnel["books"]["licenses"] == {"CC-BY-4.0": [20, 0], "public-domain": [40, kept]}
    assert sum(funnel["books"]["languages"].values()) == kept and funnel["books"]["languages"]["en"] == kept
    assert reasons(folder, "web", ["german", "mail"]) == ["gibberish", ""]  # to one who read English
    census = json.loads((folder / "census.json").read_text())
    everything = [sum(counts) for counts in zip(*census["languages"]["books"].values(), strict=True)]
    assert census["topics"]["topic"]["books"] == {"law": everything} and everything[0] == 60
    assert census["limits"]["web"]["character_perplexity"] == [None, 11.0]
    pages = [row for row in rows(folder, "documents") if row["source"] == "web"]
    assert pages and all(5 < row["character_perplexity"] <= 11 for row in pages)


def test_what_was_dropped_is_there_whole(cleaned, collected):
    before = {row["id"]: row["text"] for row in rows(collected, "documents")}
    dropped = [row for row in rows(cleaned, "dropped") if row["source"] != "chat"]
    assert dropped and all(row["text"] == before[row["id"]] for row in dropped)


def test_held_out_documents_share_no_url_with_training_and_follow_the_weights(cleaned):
    heldout, kept = rows(cleaned, "heldout"), rows(cleaned, "documents")
    assert not {row["url"] for row in heldout} & {row["url"] for row in kept}
    size = Counter()
    for row in heldout:
        size[row["source"]] += len(row["text"].encode())
    assert abs(size["books"] - 30_000) <= CHAPTER
    assert abs(size["web"] - 10_000) <= CHAPTER
    mixture = json.loads((cleaned / "mixture.json").read_text())
    assert mixture == {"books": 0.75, "web": 0.25}


def test_kept_documents_have_language_signals_and_no_address(cleaned):
    kept = rows(cleaned, "documents") + rows(cleaned, "heldout")
    assert all(
        row["language"] == "en" and row["words"] >= 50 and row["language_score"] >= 0.65 for row in kept
    )
    mail = next(row for row in kept if row["id"] == record_id("web", "mail"))
    assert mail["text"].endswith("Write to <email>.")
    counts = json.loads((cleaned / "manifest.json").read_text())["counts"]
    assert counts["personal"]["web"]["email"] == 1


def test_the_next_room_can_read_it(cleaned):
    for path in (cleaned / "documents").glob("*.parquet"):
        assert all(record.text for record in read_records(path, Document))
    for path in (cleaned / "conversations").glob("*.parquet"):
        assert all(record.messages[-1]["role"] == "assistant" for record in read_records(path, Conversation))


def test_the_same_input_gives_the_same_bytes_and_a_finished_artifact_is_reused(cleaned, config, tmp_path):
    again = run(dataclasses.replace(config, out=str(tmp_path / "again")))
    manifests = [(folder / "manifest.json").read_bytes() for folder in (cleaned, again)]
    assert manifests[0] == manifests[1]  # it has the sha256 of every file
    stamp = (again / "manifest.json").stat().st_mtime_ns
    assert run(dataclasses.replace(config, out=str(again))) == again
    assert (again / "manifest.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filters": {"wbe": prose()}}, "`filters` names wbe"),
        ({"mixture": {"books": 1, "web": 1, "wikki": 1}}, "`mixture` names wikki"),
        ({"mixture": {"books": 1}}, "has web, which `mixture` does not name"),
        ({"mixture": {"books": 0, "web": 0}}, "above 0"),
        ({"filters": {"web": (Quotes(("nowhere.jsonl.gz",)),)}}, "nowhere.jsonl.gz"),
        ({"documents": "nowhere"}, "nowhere"),
        ({"filters": {"books": prose("fi")}}, "none of the 60 documents of books is left.* 60 × language"),
    ],
)
def test_a_config_that_cannot_work_is_one_clear_line(config, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        run(dataclasses.replace(config, out=str(tmp_path / "out"), **change))
