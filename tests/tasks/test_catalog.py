"""Every task reads its rows as lm-eval does: prompts, choices, answers and grades."""

import json
from pathlib import Path

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import multiple_choice, written
from jaxtrain.tasks.catalog import TASKS
from jaxtrain.tasks.graders import similarity
from jaxtrain.tasks.overlap import quoted
from jaxtrain.tasks.task import Task, read_rows

MATERIAL = Path(__file__).parents[3] / "shared" / "material" / "benchmarks"


def test_hellaswag_loses_its_brackets():
    row = {
        "activity_label": "Baking cookies",
        "ctx_a": "[header] How to bake [title] Mix  the dough. [step] Use butter.",
        "ctx_b": "she",
        "endings": ["stirs.", "[substeps] runs.", "  sleeps.", "flies."],
        "label": "2",
    }
    item = multiple_choice.hellaswag(row)
    assert item.contexts[0] == "Baking cookies: How to bake. Mix the dough. Use butter. She"
    assert item.continuations == (" stirs.", "  runs.", " sleeps.", " flies.")  # as lm-eval leaves it
    assert item.answer == 2


def test_mmlu_shows_five_examples_of_its_subject(tmp_path: Path):
    dev = [
        {"question": f" q{n} ", "subject": subject, "choices": ["w", "x", "y", "z"], "answer": n % 4}
        for subject in ("high_school_physics", "anatomy")
        for n in range(6)
    ]
    write(tmp_path / "benchmarks" / "mmlu_dev.jsonl", dev)
    write(tmp_path / "benchmarks" / "mmlu_test.jsonl", [{**dev[0], "question": "Asked?", "answer": 3}])
    (item,) = TASKS["mmlu"].load(tmp_path)
    shown = item.contexts[0].split("\n\n")
    assert shown[0] == "The following are multiple choice questions (with answers) about high school physics."
    assert shown[2] == "q1\nA. w\nB. x\nC. y\nD. z\nAnswer: B"
    assert shown[6] == "Asked?\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    assert len(shown) == 7
    assert (item.continuations, item.answer) == ((" A", " B", " C", " D"), 3)
    (cloze,) = TASKS["mmlu_cloze"].load(tmp_path)
    assert (cloze.contexts[0], cloze.continuations[3]) == ("Question: Asked?\nAnswer:", " z")


def test_boolq_sciq_siqa_and_lambada_read_as_in_lm_eval():
    item = multiple_choice.boolq({"passage": "It rains.", "question": "does it rain", "answer": True})
    assert (item.contexts[0], item.continuations[item.answer]) == (
        "It rains.\nQuestion: does it rain?\nAnswer:",
        " yes",
    )
    row = {
        "support": " Text.",
        "question": "Who?",
        "distractor1": "a",
        "distractor2": "b",
        "distractor3": "c",
    }
    item = multiple_choice.sciq({**row, "correct_answer": "d"})
    assert item.contexts[0] == "Text.\nQuestion: Who?\nAnswer:"
    assert item.continuations[item.answer] == " d"
    row = {"context": "Al ran.", "question": "Why?", "answerA": "x", "answerB": "y", "answerC": "z"}
    item = multiple_choice.siqa({**row, "label": "3"})
    assert (item.contexts[0], item.continuations[item.answer]) == ("Q: Al ran. Why?\nA:", " z")
    for row in ({"text": "I care about signs"}, {"context": "I care about", "continuation": "signs"}):
        blank = written.lambada(row)
        assert (blank.context, blank.continuation) == ("I care about", " signs")


@pytest.mark.parametrize(
    ("answer", "strict", "flexible"),
    [
        (" 16 - 3 - 4 = 9\n#### 1,018", 1, 1),
        (" so it is $1018.", 0, 1),
        ("#### 1018.", 1, 1),
        ("#### 7 1018", 0, 1),
        ("#### 1018\n#### 7", 1, 0),
        ("no idea", 0, 0),
    ],
)
def test_gsm8k_finds_the_number_in_two_ways(answer: str, strict: int, flexible: int):
    exercise = written.gsm8k({"question": "How many?", "answer": "It is.\n#### 1,018"})
    assert exercise.prompt == "Question: How many?\nAnswer:"
    grades = exercise.grade(answer)
    assert (grades["strict"], grades["flexible"]) == (strict, flexible)


def test_bbh_shows_its_first_three_rows_and_asks_the_rest(tmp_path: Path):
    file = tmp_path / "benchmarks" / "bbh" / "navigate.json"
    file.parent.mkdir(parents=True)
    rows = [{"input": f"q{n}", "target": "Yes" if n % 2 else "No"} for n in range(5)]
    file.write_text(json.dumps({"examples": rows}))
    first, second = TASKS["bbh_navigate"].load(tmp_path)
    assert first.prompt == "Q: q0\nA: No\n\nQ: q1\nA: Yes\n\nQ: q2\nA: No\n\nQ: q3\nA:"
    assert second.grade(" no. ") == {"exact_match": 1.0} and first.grade(" no") == {"exact_match": 0.0}


def test_rouge_l_is_the_longest_common_subsequence():
    assert similarity(["the cat sat"])("the cat sat") == 1
    assert similarity(["police kill the gunman"])("police killed the gunman") == pytest.approx(0.75)
    assert similarity(["police kill the gunman"])("the gunman kill police") == pytest.approx(0.5)
    row = {"Question": "Why?", "Correct Answers": "Light scatters; It is light", "Incorrect Answers": "Magic"}
    exercise = written.truthfulqa(row)
    assert exercise.grade(" Light scatters there") == {"rouge_l_accuracy": 1.0}
    assert exercise.grade(" Magic") == {"rouge_l_accuracy": 0.0} == exercise.grade("")


FILES = {
    "boolq": "olmoeval-boolq-validation.jsonl.gz",
    "gsm8k": "gsm8k-test.jsonl",
    "hellaswag": "olmoeval-hellaswag-validation.jsonl.gz",
    "humaneval": "HumanEval.jsonl.gz",
    "lambada": "llmfoundry-lambada_openai.jsonl.gz",
    "mmlu": "olmoeval-mmlu-test.jsonl.gz",
    "mmlu_cloze": "olmoeval-mmlu-test.jsonl.gz",
    "piqa": "olmoeval-piqa-validation.jsonl.gz",
    "sciq": "olmoeval-sciq-validation.jsonl.gz",
    "siqa": "olmoeval-social_i_qa-validation.jsonl.gz",
    "truthfulqa": "TruthfulQA.csv",
    "winogrande": "olmoeval-winogrande-validation.jsonl.gz",
    **{f"bbh_{part}": f"bbh/{part}.json.gz" for part in written.BBH},
}


@pytest.mark.skipif(not MATERIAL.is_dir(), reason="needs the whole benchmarks")
@pytest.mark.parametrize("name", FILES)
def test_every_row_of_the_whole_set_is_an_item(name: str):
    task: Task = TASKS[name]
    rows = read_rows(MATERIAL / FILES[name])
    items = [task.parse(row) for row in rows]
    assert len(items) > 150
    assert all(0 <= item.chance < 1 for item in items)


def test_a_file_is_found_by_any_ending_and_named_where_it_is_absent(tmp_path: Path):
    with pytest.raises(
        UserError, match=r"lambada has no data at .*or `hub`, which fetches EleutherAI/lambada_openai"
    ):
        TASKS["lambada"].load(tmp_path)
    write(tmp_path / "benchmarks" / "lambada.jsonl", [{"text": "a b"}, {"text": "c d"}])
    assert [item.context for item in TASKS["lambada"].load(tmp_path)] == ["a", "c"]
    assert len(TASKS["lambada"].load(tmp_path, most=1)) == 1


def test_an_item_is_quoted_where_a_document_holds_thirteen_of_its_words():
    words = [f"w{n}" for n in range(30)]
    items = [[" ".join(words[:20])], ["a short question of some eight words here"], ["too short"]]
    document = "Before. " + ", ".join(words[5:18]).upper() + " after"
    assert quoted(items, [document]) == [True, False, False]
    assert quoted(items, [" ".join(words[5:17])]) == [False, False, False]
    assert quoted(items, ["x", "A short question: of some eight words, here!"]) == [False, True, False]


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
