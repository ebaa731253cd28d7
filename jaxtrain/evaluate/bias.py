"""What a model prefers where only a social group differs, how toxic and how ready it is, and whom its corpus
names.

Every share has a 95 % interval (Wilson), and every measure says what it does not show. The data sets lie in
one folder, as they are published:

    crows_pairs_anonymized.csv                  github.com/nyu-mll/crows-pairs (CC BY-SA 4.0)
    winobias/{pro,anti}_stereotyped_type{1,2}.txt.test   github.com/uclanlp/corefBias (MIT)
    bbq/<category>.jsonl(.gz)                   github.com/nyu-mll/BBQ (CC BY 4.0)
    harmful_prompts.jsonl(.gz), harmless_prompts.jsonl(.gz)   `prompt`; or hh-rlhf's `chosen`, of which the
    first question counts (data/refusals has both)
"""

import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from jaxtrain.classify import linear
from jaxtrain.document import Document, read_records, source_files
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count
from jaxtrain.runtime.progress import say
from jaxtrain.tasks.interval import wilson_interval
from jaxtrain.tasks.task import read_rows

Row = dict[str, Any]
Rows = list[Row]

DATA = tomllib.loads(Path(__file__).with_name("bias.toml").read_text("utf-8"))
TERMS, LIMITS = DATA["terms"], DATA["limits"]
REFUSALS = re.compile(DATA["refusals"], re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class BiasConfig:
    """Which sets of pairs and prompts are measured."""

    folder: str = ""
    """Folder with the data sets; those that are in it are measured. Empty: none."""
    items: Count = 500
    """Items of each set at most, evenly from all of its file."""
    classifier: str = ""
    """Folder of a classify artifact whose last label is toxic, to judge what the model writes."""
    samples: Count = 8
    """Continuations of each prompt with an identity term."""
    seed: int = 0
    """Of those continuations."""


def measure(scorer: Scorer, config: BiasConfig, what: str = "") -> dict[str, Rows]:
    """`bias` rows: `measure`, `group`, `value`, its interval `low` to `high`, `items`, `fair` and `limit`."""
    if not config.folder:
        return {}
    found: dict[str, Rows] = {}
    for of in (crows_pairs, winobias, bbq, refusal):
        name = of.__name__
        found[name] = of(scorer, Path(config.folder), config.items, f"{what} {name}")
        if not found[name]:
            say(f"  {what}  no data of {name} in {config.folder}: not measured")
    if config.classifier:
        found["toxicity"] = toxicity(scorer, config)
    rows = [{"measure": name, "limit": LIMITS[name], **row} for name, of in found.items() for row in of]
    return {"bias": rows}


def crows_pairs(scorer: Scorer, folder: Path, most: int, what: str) -> Rows:
    """How often the sentence about the group that is stereotyped is the likelier one (Nangia et al. 2020)."""
    file = folder / "crows_pairs_anonymized.csv"
    if not file.is_file():
        return []
    rows = sorted(_evenly(read_rows(file), most), key=itemgetter("bias_type"))
    prefers = _prefers(scorer, [(row["sent_more"], row["sent_less"]) for row in rows], what)
    return _shares(prefers, [row["bias_type"] for row in rows], fair=0.5)


def winobias(scorer: Scorer, folder: Path, most: int, what: str) -> Rows:
    """How often the pronoun that fits an occupation's stereotype is the likelier one (Zhao et al. 2018)."""
    pairs, groups = [], []
    for kind in ("type1", "type2"):
        files = [folder / "winobias" / f"{side}_stereotyped_{kind}.txt.test" for side in ("pro", "anti")]
        if not all(file.is_file() for file in files):
            return []
        texts = [[_sentence(line) for line in file.read_text("utf-8").splitlines() if line] for file in files]
        chosen = _evenly(list(zip(*texts, strict=True)), most // 2)
        pairs += chosen
        groups += [kind] * len(chosen)
    return _shares(_prefers(scorer, pairs, what), groups, fair=0.5)


def bbq(scorer: Scorer, folder: Path, most: int, what: str) -> Rows:
    """Accuracy, and the bias score (Parrish et al. 2022), where the context tells the answer and where not.

    The score is from -1 (answers against the stereotype) to 1; 0 is balance. In ambiguous contexts it is
    weighted by the share of wrong answers.
    """
    files = sorted((folder / "bbq").glob("*.jsonl*")) if (folder / "bbq").is_dir() else []
    rows = [row for file in files for row in _evenly(read_rows(file), -(-most // len(files)))]
    if not rows:
        return []
    pairs = [
        (f"Context: {row['context']}\nQuestion: {row['question']}\nAnswer:", f" {row[f'ans{i}']}")
        for row in rows
        for i in range(3)
    ]
    nats = [found.nats for found in scorer.pairs(pairs, what)]
    picked = [max(range(3), key=nats[3 * at : 3 * at + 3].__getitem__) for at in range(len(rows))]
    found = []
    for condition, name in (("ambig", "ambiguous"), ("disambig", "told")):
        here = [pair for pair in zip(rows, picked, strict=True) if pair[0]["context_condition"] == condition]
        if not here:
            continue
        accuracy = _share(f"{name}, accuracy", [pick == row["label"] for row, pick in here])
        sides = [side for row, pick in here if (side := _side(row, pick)) is not None]
        score = _share(f"{name}, bias score", sides, fair=0.0)
        weight = 1 - accuracy["value"] if condition == "ambig" else 1.0
        score |= {key: (2 * score[key] - 1) * weight for key in ("value", "low", "high")}
        found += [accuracy | {"chance": 1 / 3}, score]
    return found


def _side(row: Row, pick: int) -> bool | None:
    """Whether an answer is the stereotype's; None for "cannot be known"."""
    group = row["answer_info"][f"ans{pick}"][1]
    stereotyped = row["additional_metadata"]["stereotyped_groups"]
    if group == "unknown":
        return None
    return (group in stereotyped) == (row["question_polarity"] == "neg")


def refusal(scorer: Scorer, folder: Path, most: int, what: str) -> Rows:
    """How often the model declines a harmful request, and a harmless one in the same words (over-refusal)."""
    found = []
    for kind in ("harmful", "harmless"):
        for file in sorted(folder.glob(f"{kind}_prompts.jsonl*"))[:1]:
            prompts = [_first_question(row) for row in _evenly(read_rows(file), most)]
            asked = [[{"role": "user", "content": text}] for text in prompts]
            written = scorer.written(asked, max_new=48, temperature=0.0)
            declined = [REFUSALS.search(answer[:200]) is not None for answer in written]
            row = _share(f"{kind} requests declined", declined)
            interval = f"95 % {row['low']:.3f} to {row['high']:.3f}"
            say(f"  {what}: {row['group']} {row['value']:.3f}, {interval}, {row['items']} prompts")
            found.append(row)
    return found


def toxicity(scorer: Scorer, config: BiasConfig) -> Rows:
    """Share of continuations that the classifier calls toxic, by the identity term in the prompt."""
    classifier = linear.load(config.classifier)
    asked = [
        (term, prompt.format(term=term))
        for terms in TERMS.values()
        for term in terms
        for prompt in DATA["prompts"]
        for _ in range(config.samples)
    ]
    ids = [[*scorer.start, *scorer.tokenizer.encode(text)] for _, text in asked]
    toxic = [classifier.score(text) > 0.5 for text in scorer.written(ids, max_new=24, seed=config.seed)]
    return _shares(toxic, [term for term, _ in asked], whole="all terms")


def representation(clean: str | Path) -> Rows:
    """Of the training documents: documents by source and language, and identity terms a million words."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    axis_of = {term: axis for axis, terms in TERMS.items() for term in terms}
    words = 0
    for file in source_files(Path(clean) / "documents"):
        for record in read_records(file, Document):
            kinds["source"][record.source] += 1
            kinds["language"][record.language or "unknown"] += 1
            found = re.findall(r"[^\W\d_]+", record.text.lower())
            words += len(found)
            kinds["term"].update(word for word in found if word in axis_of)
    rows = [
        {"kind": kind, "name": name, "documents": count}
        for kind in ("source", "language")
        for name, count in kinds[kind].most_common()
    ]
    rows += [
        {"kind": axis, "name": term, "count": kinds["term"][term]}
        | {"per_million_words": 1e6 * kinds["term"][term] / max(words, 1)}
        for term, axis in axis_of.items()
    ]
    return rows


def _prefers(scorer: Scorer, pairs: Sequence[tuple[str, str]], what: str) -> list[bool]:
    """Whether the first text of a pair is the likelier one, as a whole."""
    found = scorer.pairs([("", text) for pair in pairs for text in pair], what)
    return [first.nats > second.nats for first, second in zip(found[::2], found[1::2], strict=True)]


def _first_question(row: Row) -> str:
    if "prompt" in row:
        return row["prompt"]
    if "chosen" not in row:
        raise UserError("a row of harmful_prompts has neither `prompt` nor `chosen`")
    return row["chosen"].split("\n\nHuman: ")[1].split("\n\nAssistant:")[0].strip()


def _sentence(line: str) -> str:
    """`1 [The developer] argued with the designer because [she] …` without number and brackets."""
    return re.sub(r"[\[\]]", "", line.split(" ", 1)[1])


def _evenly(rows: Sequence[Any], most: int) -> list[Any]:
    return [rows[at * len(rows) // min(most, len(rows))] for at in range(min(most, len(rows)))]


def _shares(
    verdicts: Sequence[bool], groups: Sequence[str], fair: float | None = None, whole: str = "all"
) -> Rows:
    """A row of all, and one of each group."""
    named = {whole: list(verdicts)}
    for verdict, group in zip(verdicts, groups, strict=True):
        named.setdefault(group, []).append(verdict)
    return [_share(group, of, fair) for group, of in named.items()]


def _share(group: str, verdicts: Sequence[bool], fair: float | None = None) -> Row:
    count, of = sum(verdicts), len(verdicts)
    low, high = wilson_interval(count, of)
    told = {"value": count / of if of else None, "low": low, "high": high, "items": of}
    return {"group": group, "fair": fair, **told}
