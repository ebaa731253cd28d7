import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Literal

import grain
import numpy as np
import pytest

from jaxtrain.feed import loader
from jaxtrain.feed.loader import Batch, conversation_batches, document_batches, heldout_batches, prefetch
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


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_gets_the_same_global_batch(tokens: Path, processes: int) -> None:
    for make in (
        lambda process: document_batches(tokens, seed=0, process=process, **SIZE),
        lambda process: conversation_batches(tokens, seed=0, process=process, **SIZE),
        lambda process: heldout_batches(tokens, "books", process=process, **SIZE),
    ):
        whole, parts = make((0, 1)), [make((p, processes)) for p in range(processes)]
        for step in (0, 3):
            rows = [part[step] for part in parts]
            assert equal(whole[step], {n: np.concatenate([part[n] for part in rows]) for n in whole[step]})
    with pytest.raises(UserError, match="does not divide"):
        document_batches(tokens, batch_size=9, length=128, seed=0, process=(0, 2))


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
    assert loader.heldout_bytes(tokens, source) == data.heldout_bytes(source)


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
    steps = loader.conversation_steps(tokens, **size)
    train = first_ids(conversation_batches(tokens, seed=0, **size), steps)
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
    found = loader.needs(tokens, steps=50, batch_size=16, length=256)
    lengths = TokenData.open(tokens).documents("books").lengths
    assert found["books"].tokens == lengths.sum() + 2 * len(lengths)
    assert found["books"].needed == round(0.7 * 50 * 16 * 256)
    assert found["books"].epochs == pytest.approx(found["books"].needed / found["books"].tokens)
    with pytest.raises(UserError, match=r"read books \d+\.\d times .* take at most (\d+) steps") as error:
        loader.needs(tokens, steps=1000, batch_size=16, length=256)
    allowed = int(str(error.value).split("at most ")[1].split()[0])
    assert loader.needs(tokens, steps=allowed, batch_size=16, length=256)


def test_a_source_without_tokens_is_an_error(tokens: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    shutil.copytree(tokens, folder)
    shutil.copy(tokens.parent / "empty.arrayrecord", folder / "documents/code/00000.arrayrecord")
    np.save(folder / "documents/code/lengths.npy", np.zeros(0, np.int64))
    for make in (
        lambda: loader.needs(folder, 1, 1, 8),
        lambda: document_batches(folder, batch_size=1, length=8, seed=0),
    ):
        with pytest.raises(UserError, match="'code' has a weight in mixture.json but no tokens"):
            make()


def test_data_of_another_tokenizer_is_refused(tokens: Path) -> None:
    with pytest.raises(UserError, match="another tokenizer"):
        document_batches(tokens, seed=0, tokenizer_fingerprint="0" * 64, **SIZE)
    with pytest.raises(UserError, match="another tokenizer"):
        conversation_batches(tokens, seed=0, tokenizer_fingerprint="0" * 64, **SIZE)
