"""lm-eval on our models: its numbers are those of our tasks, and of its `hf` on the exported folder."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxtrain.evaluate.benchmarks import grade
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tasks import hub
from jaxtrain.tasks.catalog import TASKS
from jaxtrain.tasks.task import Shots, Task
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.weights import save_pretrained

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
ROOT = Path(__file__).parents[2]
DATA = ROOT / "data" / "quickstart"
MATERIAL = ROOT.parent / "shared" / "material" / "benchmarks"
ITEMS = int(os.environ.get("HARNESS_ITEMS", "24"))
"""Of a task; with 200 the file took seven minutes on two busy cores."""
pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),
]  # warnings of packages that are not ours


@pytest.fixture(scope="module", autouse=True)
def one_device():
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (`make test-peers`)")
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, exported with a tokenizer that lm-eval's `hf` can read."""
    import tokenizers

    path = tmp_path_factory.mktemp("exported")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator((str(row) for row in TASKS["arc_easy"].rows(DATA)), trainer)
    bpe.save(str(path / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    settings = {**names, "tokenizer_class": "PreTrainedTokenizerFast"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    config = ModelConfig(
        vocab_size=500, layers=2, d_model=32, heads=4, kv_heads=2, head_dim=8, d_hidden=64, max_length=2048
    )
    model = jax.jit(lambda: Transformer(config, jax.random.key(5)))()
    sharper = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 8 if "head_DV" in str(path) else leaf, model
    )
    save_pretrained(sharper, path)
    return path


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    from jaxtrain.weights import load_pretrained

    return Scorer(load_pretrained(folder), Tokenizer.load(folder), length=2048, batch_size=4)


@pytest.fixture(scope="module")
def include(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """lm-eval's own task files, reading our data files."""
    import lm_eval  # pyrefly: ignore[missing-import]

    path, stock = tmp_path_factory.mktemp("tasks"), Path(lm_eval.__file__).parent / "tasks"
    for name, (source, split, file) in {
        "arc_easy": ("arc/arc_easy.yaml", "validation", DATA / TASKS["arc_easy"].path),
        "piqa": ("piqa/piqa.yaml", "validation", DATA / TASKS["piqa"].path),
        "hellaswag": (
            "hellaswag/hellaswag.yaml",
            "validation",
            MATERIAL / "olmoeval-hellaswag-validation.jsonl.gz",
        ),
        "lambada": (
            "lambada/lambada_openai.yaml",
            "test",
            MATERIAL / "llmfoundry-lambada_openai.jsonl.gz",
        ),
        "gsm8k": ("gsm8k/gsm8k.yaml", "test", MATERIAL / "gsm8k-test.jsonl"),
    }.items():
        others = {f"{other}_split": None for other in ("training", "validation", "test")}
        files = {split: str(file)}
        lines: dict[str, Any] = {
            "include": str(stock / source),
            "task": f"our_{name}",
            "dataset_path": "json",
            "dataset_name": None,
            **others,
            f"{split}_split": split,
        }
        if name == "lambada":
            lines |= {"doc_to_text": "{{context}}", "doc_to_target": "{{' '+continuation}}"}
        if name == "gsm8k":
            files["train"] = str(MATERIAL / "gsm8k-train.jsonl.gz")
            lines |= {"fewshot_split": "train", "num_fewshot": 2, "fewshot_config": {"sampler": "first_n"}}
            lines |= {
                "generation_kwargs": {
                    "until": ["Question:", "</s>", "<|im_end|>"],
                    "do_sample": False,
                    "max_gen_toks": 16,
                }
            }
        lines["dataset_kwargs"] = {"data_files": files}
        (path / f"{name}.yaml").write_text(json.dumps(lines))  # JSON is YAML
    return path


def samples(model: Any, task: str, include: Path) -> list[dict[str, Any]]:
    """What lm-eval saw of each item."""
    from lm_eval import simple_evaluate  # pyrefly: ignore[missing-import]
    from lm_eval.tasks import TaskManager  # pyrefly: ignore[missing-import]

    found = simple_evaluate(
        model,
        tasks=[f"our_{task}"],
        limit=ITEMS,
        task_manager=TaskManager(include_path=str(include)),
        bootstrap_iters=0,
        **({"model_args": {"dtype": "float32"}} if isinstance(model, str) else {}),
    )
    assert found is not None
    return sorted(found["samples"][f"our_{task}"], key=lambda sample: (sample["doc_id"], sample["filter"]))


def harness(scorer: Scorer):
    from jaxtrain.evaluate.harness import HarnessModel

    return HarnessModel(scorer)


def items(task: Task, tmp_path: Path, **files: str) -> list[Any]:
    """Ours, from the same rows."""
    for ours, theirs in files.items():
        (tmp_path / "benchmarks").mkdir(exist_ok=True)
        (tmp_path / "benchmarks" / ours.replace("__", ".")).symlink_to(MATERIAL / theirs)
    return task.load(tmp_path if files else DATA, ITEMS)


@pytest.mark.parametrize(
    "task", [TASKS["arc_easy"], TASKS["piqa"], TASKS["hellaswag"]], ids=lambda task: task.name
)
def test_choices_are_ours_to_the_item(task: Task, scorer: Scorer, include: Path, tmp_path: Path):
    if task is TASKS["hellaswag"] and not MATERIAL.is_dir():
        pytest.skip("needs the whole benchmarks")
    files = (
        {"hellaswag__jsonl__gz": "olmoeval-hellaswag-validation.jsonl.gz"}
        if task is TASKS["hellaswag"]
        else {}
    )
    loaded = items(task, tmp_path, **files)
    theirs = samples(harness(scorer), task.name, include)
    ours = scorer.choices(loaded)
    for sample, values in zip(theirs, ours, strict=True):
        np.testing.assert_allclose([float(nats) for nats, _ in sample["filtered_resps"]], values, atol=1e-3)
    grades = grade(scorer, task, loaded, unconditional=False)
    assert [sample["acc"] for sample in theirs] == grades["accuracy"].tolist()
    assert [sample["acc_norm"] for sample in theirs] == grades["accuracy_per_byte"].tolist()


@pytest.mark.skipif(not MATERIAL.is_dir(), reason="needs the whole benchmarks")
def test_lambada_is_ours_to_the_item(scorer: Scorer, include: Path, tmp_path: Path):
    loaded = items(TASKS["lambada"], tmp_path, lambada__jsonl__gz="llmfoundry-lambada_openai.jsonl.gz")
    theirs, ours = (
        samples(harness(scorer), "lambada", include),
        scorer.pairs([(item.context, item.continuation) for item in loaded]),
    )
    for sample, found in zip(theirs, ours, strict=True):
        assert float(sample["filtered_resps"][0][0]) == pytest.approx(found.nats, abs=1e-3)
        assert float(sample["acc"]) == found.is_greedy


@pytest.mark.skipif(not MATERIAL.is_dir(), reason="needs the whole benchmarks")
def test_gsm8k_is_ours_to_the_answer(scorer: Scorer, include: Path, tmp_path: Path):
    from dataclasses import replace

    assert isinstance(TASKS["gsm8k"].shots, Shots)
    two = replace(TASKS["gsm8k"], shots=replace(TASKS["gsm8k"].shots, count=2))
    loaded = items(
        two, tmp_path, gsm8k_test__jsonl="gsm8k-test.jsonl", gsm8k_train__jsonl__gz="gsm8k-train.jsonl.gz"
    )
    ours = [one.said for one in scorer.dialogues([replace(item, tokens=16) for item in loaded])]
    theirs = samples(harness(scorer), "gsm8k", include)
    strict = [sample for sample in theirs if sample["filter"] == "strict-match"]
    assert [sample["resps"][0][0] for sample in strict] == ours
    assert all(sample["arguments"][0][0] == item.prompt for sample, item in zip(strict, loaded, strict=True))
    grades = [item.grade(text) for item, text in zip(loaded, ours, strict=True)]
    for name, by in (("strict-match", "strict"), ("flexible-extract", "flexible")):
        of = [sample["exact_match"] for sample in theirs if sample["filter"] == name]
        assert of == [grade[by] for grade in grades]


@pytest.mark.parametrize("task", ["arc_easy", "piqa", "hellaswag"])
def test_lm_evals_own_client_of_our_server_scores_the_same(
    task: str, folder: Path, scorer: Scorer, include: Path
):
    """`local-completions`: prompts as ids, echoed with how likely each was, several in a request."""
    pytest.importorskip("transformers", reason="transformers is not installed (`make test-peers`)")
    from lm_eval.models.openai_completions import LocalCompletionsAPI  # pyrefly: ignore[missing-import]
    from parrot import serving

    from jaxtrain.serve.app import ServeApp
    from jaxtrain.serve.engine import Engine

    if task == "hellaswag" and not MATERIAL.is_dir():
        pytest.skip("needs the whole benchmarks")
    with serving(ServeApp(Engine(folder, rows=4))) as address:
        client = LocalCompletionsAPI(
            base_url=f"{address}/v1/completions",
            model=folder.name,
            tokenizer=str(folder),
            tokenizer_backend="huggingface",
            batch_size=4,
        )
        theirs, ours = samples(client, task, include), samples(harness(scorer), task, include)
    assert len(theirs) == len(ours) >= ITEMS
    for their, our in zip(theirs, ours, strict=True):
        for one, other in zip(their["filtered_resps"], our["filtered_resps"], strict=True):
            assert float(one[0]) == pytest.approx(float(other[0]), abs=1e-3)
            assert one[1] == other[1]
        assert their["acc"] == our["acc"]


def test_a_whole_text_is_its_pieces(scorer: Scorer):
    from lm_eval.api.instance import Instance  # pyrefly: ignore[missing-import]

    short = Scorer(scorer.model, scorer.tokenizer, length=16, batch_size=4)
    text = TASKS["arc_easy"].load(DATA)[0].contexts[0] * 2
    ids = scorer.tokenizer.encode(text)
    assert len(ids) > 40
    request = Instance("loglikelihood_rolling", {}, (text,), 0)
    (found,) = harness(short).loglikelihood_rolling([request])
    whole, total = [scorer.tokenizer.bos, *ids], 0.0
    for first in range(1, len(whole), 16):
        last = min(first + 16, len(whole))
        seen = np.array([whole[max(0, last - 17) : last]], np.int32)
        if first == 1:
            seen = np.array([whole[:last]], np.int32)
        logprobs = jax.nn.log_softmax(scorer.model(seen[:, :-1]))[0, -(last - first) :]
        total += sum(float(logprobs[at, token]) for at, token in enumerate(whole[first:last]))
    assert found == pytest.approx(total, abs=1e-3)


def test_rows_say_metric_error_items_and_shots(scorer: Scorer, include: Path):
    from jaxtrain.evaluate.harness import run
    from jaxtrain.runtime.errors import UserError

    rows = run(scorer, ["our_arc_easy"], str(include), ITEMS)
    assert [row["metric"] for row in rows] == ["acc", "acc_norm"]
    grades = grade(scorer, TASKS["arc_easy"], TASKS["arc_easy"].load(DATA, ITEMS), unconditional=False)
    assert rows[0]["value"] == pytest.approx(grades["accuracy"].mean())
    assert rows[0]["standard_error"] == pytest.approx(grades["accuracy"].std(ddof=1) / np.sqrt(ITEMS))
    assert (rows[0]["items"], rows[0]["shots"], rows[0]["version"]) == (ITEMS, 0, 1.0)
    with pytest.raises(UserError, match="lm-eval has no task our_arc_hard"):
        run(scorer, ["our_arc_hard"], str(include), ITEMS)


def test_the_hub_gives_the_same_items(tmp_path: Path):
    """A folder stands in for a repository: `datasets` reads both."""
    pytest.importorskip("datasets")
    from dataclasses import replace

    (tmp_path / "repository").mkdir()
    rows = TASKS["arc_easy"].rows(DATA)[:5]
    (tmp_path / "repository" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = replace(TASKS["arc_easy"], hub=(str(tmp_path / "repository"), None, "train"))
    hub.fetch_task(task, tmp_path / "hub")
    assert task.load(tmp_path / "hub") == TASKS["arc_easy"].load(DATA, 5)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("piqa", "lambada")]


@pytest.mark.parametrize("name", ["arc_easy", "gsm8k", *SLOW])
def test_the_exported_folder_scores_the_same_in_their_own_model(
    name: str, folder: Path, scorer: Scorer, include: Path
):
    pytest.importorskip("transformers", reason="transformers is not installed (`make test-peers`)")
    from lm_eval.models.huggingface import HFLM  # pyrefly: ignore[missing-import]

    if name in ("lambada", "gsm8k") and not MATERIAL.is_dir():
        pytest.skip("needs the whole benchmarks")
    hf = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=8)
    theirs, ours = samples(hf, name, include), samples(harness(scorer), name, include)
    assert len(theirs) == len(ours) >= ITEMS
    for their, our in zip(theirs, ours, strict=True):
        if name == "gsm8k":
            assert their["resps"] == our["resps"]
            continue
        pairs = zip(their["filtered_resps"], our["filtered_resps"], strict=True)
        for (nats, is_greedy), (our_nats, our_greedy) in pairs:
            assert float(our_nats) == pytest.approx(float(nats), abs=1e-3)
            assert our_greedy == is_greedy
        assert their["acc"] == our["acc"]
