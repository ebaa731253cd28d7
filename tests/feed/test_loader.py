import json
import shutil
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import grain
import numpy as np
import pytest

from jaxtrain.feed import loader
from jaxtrain.feed.documents import Documents, Phase
from jaxtrain.feed.loader import Batch, conversation_batches, heldout_batches, prefetch
from jaxtrain.feed.sources import TokenData, TokenRecords
from jaxtrain.runtime.errors import UserError

DTYPES = {
    "tokens": np.int32,
    "targets": np.int32,
    "loss_weights": np.float32,
    "segment_ids": np.int32,
    "positions": np.int32,
}
SIZE = {"batch_size": 8, "length": 128}


def document_batches(folder: Path, process: loader.Process | None = None, **how: Any) -> grain.MapDataset:
    return loader.document_batches(Documents.open(folder, **how), process)


def equal(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def segments(batch: Batch) -> list[dict[str, np.ndarray]]:
    """Every segment of every row, its arrays cut out; checks that segments are whole and count from 1."""
    found = []
    for row in range(len(batch["tokens"])):
        ids = batch["segment_ids"][row]
        assert sorted(set(ids.tolist()) - {0}) == list(range(1, ids.max() + 1))
        assert not np.any(np.diff(ids[ids > 0]) < 0) and not np.any(ids[np.count_nonzero(ids) :])
        found += [{n: batch[n][row][ids == s] for n in batch} for s in range(1, ids.max() + 1)]
    return found


def counted_pairs(batches: list[Batch]) -> Counter[tuple[int, int]]:
    """How often each (token, target) counts in the loss."""
    pairs: Counter[tuple[int, int]] = Counter()
    for batch in batches:
        chosen = batch["loss_weights"] == 1
        assert np.all(chosen | (batch["loss_weights"] == 0))
        pairs.update(zip(batch["tokens"][chosen].tolist(), batch["targets"][chosen].tolist(), strict=True))
    return pairs


@pytest.mark.parametrize("packing", ["best_fit", "concat_and_split"])
def test_a_batch_is_as_documented(tokens: Path, packing: Literal["best_fit", "concat_and_split"]) -> None:
    tokenizer = TokenData.open(tokens).tokenizer
    batches = document_batches(tokens, seed=0, packing=packing, **SIZE)
    begun = ended = 0
    for step in range(150):
        batch = batches[step]
        assert {name: (a.dtype, a.shape) for name, a in batch.items()} == {
            n: (t, (8, 128)) for n, t in DTYPES.items()
        }
        empty = batch["segment_ids"] == 0
        assert np.all(batch["tokens"][empty] == tokenizer.pad) and not np.any(batch["loss_weights"][empty])
        for piece in segments(batch):
            ids = piece["tokens"].tolist()
            assert piece["positions"].tolist() == list(range(len(ids)))
            assert piece["targets"][:-1].tolist() == ids[1:]
            assert np.all(piece["loss_weights"][:-1] == 1)
            assert piece["loss_weights"][-1] == (ids[-1] != tokenizer.eos)
            assert tokenizer.bos not in ids[1:] and tokenizer.eos not in ids[:-1]
            assert tokenizer.bos not in piece["targets"].tolist()
            begun, ended = begun + (ids[0] == tokenizer.bos), ended + (ids[-1] == tokenizer.eos)
    assert begun and ended


def test_a_step_is_a_pure_function_of_seed_and_step(tokens: Path) -> None:
    first, again, other = (document_batches(tokens, seed=seed, **SIZE) for seed in (0, 0, 1))
    for step in (5000, 0, 7):
        assert equal(first[step], again[step])
        assert not equal(first[step], other[step])
    ahead = list(prefetch(first, 3, 40, threads=3))
    assert len(ahead) == 37 and all(equal(batch, again[step]) for step, batch in enumerate(ahead, 3))
    assert list(prefetch(first, 3, 3)) == []


def joined(parts: list[Batch]) -> Batch:
    """The rows of several processes as one batch."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_any_number_of_processes_gets_the_same_global_batch(tokens: Path, processes: int) -> None:
    phases = [Phase(step=70, weights={"code": 1, "books": 1})]
    for make, steps in (
        (lambda process: document_batches(tokens, seed=0, process=process, curriculum=phases, **SIZE), 201),
        (lambda process: conversation_batches(tokens, seed=0, process=process, **SIZE), 201),
        (lambda process: heldout_batches(tokens, "books", process=process, **SIZE), 10),
    ):
        whole, parts = make((0, 1)), [make((p, processes)) for p in range(processes)]
        for step in range(steps):
            assert equal(whole[step], joined([part[step] for part in parts])), step
    with pytest.raises(UserError, match="does not divide"):
        document_batches(tokens, batch_size=9, length=128, seed=0, process=(0, 2))


def test_asked_for_the_next_step_from_anywhere_it_gives_the_same_bytes(tokens: Path) -> None:
    whole = list(prefetch(document_batches(tokens, seed=0, **SIZE), 0, 200))
    for stop in range(0, 200, 7):
        rest = prefetch(document_batches(tokens, seed=0, **SIZE), stop, stop + 3)
        assert all(equal(a, b) for a, b in zip(whole[stop : stop + 3], rest, strict=False)), stop
    far = 10**9
    first, again = (document_batches(tokens, seed=0, **SIZE)[far] for _ in range(2))
    assert equal(first, again) and not equal(first, whole[0])


def test_memory_does_not_grow_with_the_steps(tokens: Path) -> None:
    batches = document_batches(tokens, seed=0, batch_size=2, length=64)
    tracemalloc.start()
    try:
        for step in range(0, 10**9, 10**7):  # another block of the mixture and another epoch every time
            batches[step]
        before = tracemalloc.get_traced_memory()[0]
        for step in range(0, 10**9, 10**6):
            batches[step]
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 30_000  # bytes; one block of the mixture is 65,536


def test_an_epoch_trains_every_token_of_a_source_once(tokens: Path, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    shutil.copytree(tokens, folder)
    (folder / "mixture.json").write_text(json.dumps({"code": 1.0}))
    data = TokenData.open(folder)
    batches = document_batches(folder, batch_size=1, length=256, seed=3)
    rows = len(loader.best_fit(data.documents("code").lengths + 2, 256))
    expected = pairs_of(data, data.documents("code"))
    for epoch in range(2):
        assert counted_pairs([batches[step] for step in range(epoch * rows, (epoch + 1) * rows)]) == expected


def pairs_of(data: TokenData, records: TokenRecords) -> Counter[tuple[int, int]]:
    pairs: Counter[tuple[int, int]] = Counter()
    for index in range(len(records)):
        ids = [data.tokenizer.bos, *records[index].tolist(), data.tokenizer.eos]
        pairs.update(zip(ids[:-1], ids[1:], strict=True))
    return pairs


@pytest.mark.parametrize("source", ["books", "code"])
def test_heldout_covers_every_token_once(tokens: Path, source: str) -> None:
    data = TokenData.open(tokens)
    batches = heldout_batches(tokens, source, **SIZE)
    assert counted_pairs([batches[i] for i in range(len(batches))]) == pairs_of(data, data.heldout(source))
    assert loader.heldout_sources(tokens) == ["books", "code"]


def test_the_mixture_is_applied(tokens: Path, tmp_path: Path) -> None:
    decode = TokenData.open(tokens).tokenizer.decode
    batches = document_batches(tokens, seed=0, batch_size=64, length=128)
    text = [decode(row.tolist()) for step in range(16) for row in batches[step]["tokens"]]
    code = np.mean([row.count("self") + row.count("return") + row.count("    ") > 2 for row in text])
    assert 0.2 < code < 0.4  # weight 0.3, told apart by eye of code


def test_conversations_are_whole_and_only_answers_count(tokens: Path) -> None:
    tokenizer = TokenData.open(tokens).tokenizer
    batches = conversation_batches(tokens, seed=0, **SIZE)
    for step in range(5):
        for piece in segments(batches[step]):
            ids = piece["tokens"].tolist()
            assert ids[0] == tokenizer.bos and ids.count(tokenizer.bos) == 1
            assert ids[-1] == tokenizer.special["<|end|>"] and piece["loss_weights"][-1] == 0
            answer = ids.index(tokenizer.special["<|assistant|>"])
            assert piece["targets"][piece["loss_weights"] == 1].tolist() == ids[answer + 1 :]


def first_ids(batches: grain.MapDataset, count: int) -> set[tuple[int, ...]]:
    return {tuple(piece["tokens"].tolist()) for step in range(count) for piece in segments(batches[step])}


def test_the_split_of_conversations_is_stable_and_complete(
    tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = {"batch_size": 4, "length": 256, "heldout_share": 0.2}
    heldout = conversation_batches(tokens, seed=0, split="heldout", **size)
    train = first_ids(conversation_batches(tokens, seed=0, **size), 400 // 4)  # more than an epoch
    kept = first_ids(heldout, len(heldout))
    assert not train & kept
    lengths = TokenData.open(tokens).conversations("alpaca").lengths
    records = TokenData.open(tokens).conversations("alpaca")
    short = {tuple(records[i][0].tolist()) for i in np.flatnonzero(lengths <= 256)}
    assert train | kept == short
    assert len(kept) == pytest.approx(0.2 * len(short), rel=0.4)
    assert "heldout conversations, longer than 256 tokens" in capsys.readouterr().err
    again = conversation_batches(tokens, seed=9, split="heldout", batch_size=8, length=512, heldout_share=0.2)
    assert kept <= first_ids(again, len(again))


def test_no_conversation_short_enough_is_an_error(tokens: Path) -> None:
    with pytest.raises(UserError, match="no train conversation of at most 4 tokens"):
        conversation_batches(tokens, batch_size=2, length=4, seed=0)


def test_needs_count_epochs_and_stop_at_too_many(tokens: Path) -> None:
    size = {"batch_size": 16, "length": 256, "seed": 0}
    found = Documents.open(tokens, **size).needs(50, 4)
    lengths = TokenData.open(tokens).documents("books").lengths
    books = found["books"]
    assert books.tokens == lengths.sum() + 2 * len(lengths)
    batches = document_batches(tokens, **size)
    real = sum(np.count_nonzero(batches[step]["segment_ids"]) for step in range(50))
    assert sum(need.needed for need in found.values()) == pytest.approx(real, rel=0.01)
    assert 0 < books.share_padded < 0.05
    assert books.share_headless == pytest.approx(np.maximum(lengths + 2 - 256, 0).sum() / books.tokens)
    with pytest.raises(UserError, match=r"read books \d+\.\d times .* take at most (\d+) steps") as error:
        Documents.open(tokens, **size).needs(1000, 4)
    allowed = int(str(error.value).split("at most ")[1].split()[0])
    assert Documents.open(tokens, **size).needs(allowed, 4)["books"].epochs <= 4
    with pytest.raises(UserError, match=f"take at most {allowed} steps"):
        Documents.open(tokens, **size).needs(allowed + 1, 4)
    assert Documents.open(tokens, **size).needs(1000, 100)


def test_weights_change_at_their_steps(tokens: Path) -> None:
    size = {"batch_size": 8, "length": 128, "seed": 0}
    plain = document_batches(tokens, **size)
    phases = [Phase(step=10, weights={"code": 1}), Phase(step=20, weights={"books": 1, "code": 1})]
    changed = document_batches(tokens, **size, curriculum=phases)
    assert all(equal(plain[step], changed[step]) for step in range(10))
    only = [row.tolist() for step in range(10, 20) for row in changed[step]["tokens"]]
    code = [row.tolist() for step in range(40) for row in one_source(tokens, "code", **size)[step]["tokens"]]
    drawn = sum(row in code for step in range(10) for row in plain[step]["tokens"].tolist())
    assert only == code[drawn : drawn + 80]  # where the first phase left off
    for stop in (5, 15, 40):
        found = Documents.open(tokens, **size, curriculum=phases).needs(stop, 4)
        counted = sum(row in code for step in range(stop) for row in changed[step]["tokens"].tolist())
        assert found["code"].epochs == counted / len(
            loader.best_fit(TokenData.open(tokens).documents("code").lengths + 2, 128)
        )


def one_source(tokens: Path, source: str, **size: int) -> grain.MapDataset:
    """Batches of one source of the artifact."""
    folder = tokens.parent / f"only_{source}"
    if not folder.exists():
        shutil.copytree(tokens, folder)
        (folder / "mixture.json").write_text(json.dumps({source: 1.0}))
    return document_batches(folder, **size)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([Phase(step=0, weights={"code": 1})], "a step above 0"),
        ([Phase(step=9, weights={"code": 1}), Phase(step=3, weights={"code": 1})], "above that of the phase"),
        ([Phase(step=9, weights={"wiki": 1})], "no documents of wiki are there, but of: books, code"),
        ([Phase(step=9, weights={"code": 0})], "at least one must be above 0"),
        ([Phase(step=9, weights={"code": 2, "books": -1})], "must not be negative"),
    ],
)
def test_phases_that_cannot_be_are_refused(tokens: Path, phases: list[Phase], message: str) -> None:
    with pytest.raises(UserError, match=message):
        document_batches(tokens, seed=0, curriculum=phases, **SIZE)


def test_a_source_without_tokens_is_an_error(tokens: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    shutil.copytree(tokens, folder)
    shutil.copy(tokens.parent / "empty.arrayrecord", folder / "documents/code/00000.arrayrecord")
    np.save(folder / "documents/code/lengths.npy", np.zeros(0, np.int64))
    with pytest.raises(UserError, match="'code' has a weight in the mixture but no tokens"):
        Documents.open(folder, batch_size=1, length=8, seed=0)
    (folder / "mixture.json").write_text("{}")
    with pytest.raises(UserError, match=r"mixture.json: .* at least one must be above 0"):
        document_batches(folder, batch_size=1, length=8, seed=0)


def test_data_of_another_tokenizer_is_refused(tokens: Path) -> None:
    with pytest.raises(UserError, match="another tokenizer"):
        TokenData.open(tokens, tokenizer_fingerprint="0" * 64)
