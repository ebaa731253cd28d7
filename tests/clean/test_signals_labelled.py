"""Gibberish, spam and topic as signals: precision and recall on labelled texts."""

import gzip
import json
import lzma
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxtrain.classify import linear
from jaxtrain.classify.linear import Training
from jaxtrain.classify.run import is_heldout
from jaxtrain.clean.gibberish import CharacterModel
from jaxtrain.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
TEXT = ROOT.parent / "shared" / "material" / "text"
SAMPLES, MASC = TEXT / "evals-text_compression-samples.jsonl.gz", TEXT / "nltk-masc_tagged.zip"
needs_texts = pytest.mark.skipif(not TEXT.exists(), reason="needs the labelled texts of ../shared/material")


@pytest.fixture(scope="module")
def novels(tmp_path_factory: pytest.TempPathFactory) -> CharacterModel:
    path = tmp_path_factory.mktemp("reference") / "novels.txt"
    with lzma.open(ROOT / "data" / "quickstart" / "books.jsonl.xz", "rt", encoding="utf-8") as lines:
        path.write_text("\n".join(json.loads(line)["text"] for line in lines), encoding="utf-8")
    return CharacterModel.read([str(path)])


def test_perplexity_worked_out_by_hand():
    """5,000 times `ab`: behind `ab` always `a`, and the shares of a and b are a half."""
    model = CharacterModel.count("ab" * 5_000)
    probability = 0.7 + 0.25 + 0.05 * 5000 / 10_003  # three are for what was never seen
    assert model.perplexity("ababab") == pytest.approx(1 / probability, rel=1e-3)
    never = 0.05 / 10_003
    assert model.perplexity("xyz") == pytest.approx(1 / never, rel=1e-2)
    assert model.perplexity("AB") == 1.0 and model.perplexity("") == 1.0
    assert np.isfinite(model.nats_CCC).all()
    with pytest.raises(UserError, match="too few to count on"):
        CharacterModel.count("short")
    with pytest.raises(UserError, match="nowhere"):
        CharacterModel.read(["nowhere.txt"])


@needs_texts
def test_gibberish_is_told_from_writing(novels):
    """Random characters beside quotes, web pages and encyclopedia; digits are for other limits."""
    with gzip.open(SAMPLES, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    writing = {"c4", "openwebtext", "oscar", "wikipedia", "Abirate/english_quotes"}
    random = [row["text"] for row in rows if row["type"] == "RandomCharAndNumberDataset"]
    digits = [text for text in random if text.isdigit()]
    characters = [text for text in random if not text.isdigit()]
    texts = [row["text"] for row in rows if row["type"] in writing] + characters
    true = np.arange(len(texts)) >= len(texts) - len(characters)
    found = linear.f1(true, np.array([novels.perplexity(text) for text in texts]) > 50)
    assert len(texts) == 275 and found["precision"] >= 0.9 and found["recall"] >= 0.95, found
    assert len(digits) == 25 and max(map(novels.perplexity, digits)) < 6


def masc() -> tuple[list[str], list[str]]:
    """Texts of the corpus without their part-of-speech tags, and the kind of each."""
    with zipfile.ZipFile(MASC) as archive:
        lines = archive.read("masc_tagged/categories.txt").decode().splitlines()
        kinds = dict(line.split() for line in lines)
        raw = [archive.read(f"masc_tagged/{name}").decode("utf-8", "replace") for name in kinds]
    plain = [" ".join(token.rpartition("_")[0] for token in text.split()) for text in raw]
    return plain, list(kinds.values())


def measured(labels: list[str], texts: list[str]) -> dict[str, dict[str, float]]:
    """Of a classifier trained on four fifths, on the fifth that `jaxtrain classify` holds out."""
    names = sorted(set(labels))
    numbers = [names.index(label) for label in labels]
    held = np.array([is_heldout(text) for text in texts])
    known = np.flatnonzero(~held).tolist()
    training = Training(table_bits=16, epochs=12, batch=32)
    model = linear.train([texts[i] for i in known], [numbers[i] for i in known], names, training)
    guess = np.array([names.index(model.label(texts[i])) for i in np.flatnonzero(held)])
    true = np.array(numbers)[held]
    return {
        name: linear.f1(true == i, guess == i) | {"texts": int((true == i).sum())}
        for i, name in enumerate(names)
    }


@needs_texts
def test_spam_is_told_from_letters():
    texts, kinds = masc()
    chosen = [
        (text, kind) for text, kind in zip(texts, kinds, strict=True) if kind in ("spam", "email", "letters")
    ]
    found = measured(
        ["spam" if kind == "spam" else "other" for _, kind in chosen], [text for text, _ in chosen]
    )
    assert (
        found["spam"]["texts"] >= 10 and found["spam"]["precision"] >= 0.8 and found["spam"]["recall"] >= 0.8
    )


@needs_texts
def test_topics_are_told_apart():
    """News, film reviews, speeches of state, letters of charities; 60 pieces each at most."""
    texts, kinds = masc()
    pairs = [
        (text, kind) for text, kind in zip(texts, kinds, strict=True) if kind in ("newspaper", "letters")
    ]
    for name, label in (("movie_reviews", "film"), ("state_union", "politics"), ("genesis", "religion")):
        with zipfile.ZipFile(TEXT / f"nltk-{name}.zip") as archive:
            files = sorted(
                file for file in archive.namelist() if file.endswith(".txt") and "README" not in file
            )
            files = [file for file in files if name != "genesis" or "english" in file]
            raw = [
                archive.read(file).decode("utf-8", "replace") for file in files[:: math.ceil(len(files) / 60)]
            ]
        pairs += [(text[:3000], label) for text in raw]
    found = measured([label for _, label in pairs], [text for text, _ in pairs])
    assert min(of["f1"] for of in found.values()) >= 0.6, found
