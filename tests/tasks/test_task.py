"""Benchmarks: the files load, prompts read as in published harnesses, bad files are named."""

import gzip
import json
import textwrap
from dataclasses import replace

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import catalog
from jaxtrain.tasks import task as tasks
from jaxtrain.tasks.catalog import TASKS as CATALOG
from jaxtrain.tasks.task import Task, chance

ARC, PIQA, WINOGRANDE = (CATALOG[name] for name in ("arc_easy", "piqa", "winogrande"))
TASKS = [ARC, PIQA, WINOGRANDE]


def items(task, expected):
    loaded = task.load()
    assert len(loaded) == expected
    return loaded


@pytest.mark.parametrize(("task", "expected"), [(ARC, 570), (PIQA, 460), (WINOGRANDE, 423)])
def test_every_choice_reads_on_from_its_context(task, expected):
    for item in items(task, expected):
        assert all(text.startswith(" ") and text.strip() for text in item.continuations)
        assert all(text and not text[-1].isspace() for text in item.contexts)
        assert len({c + t for c, t in zip(item.contexts, item.continuations, strict=True)}) > 1


def test_arc_reads_as_in_lm_eval():
    item = ARC.load()[0]
    assert set(item.contexts) == {"Question: Which technology was developed most recently?\nAnswer:"}
    assert item.continuations == (" cellular telephone", " television", " refrigerator", " airplane")
    assert (item.answer, item.lengths) == (0, (18, 10, 12, 8))


def test_piqa_reads_as_in_lm_eval():
    item = PIQA.load()[3]
    assert item.contexts[0] == "Question: Find spices easily in the kitchen.\nAnswer:"
    assert item.continuations[item.answer] == " Arrange your spices alphabetically to make finding them easy."


def test_winogrande_scores_the_same_words_after_each_option():
    item = WINOGRANDE.load()[1]
    assert item.contexts == (
        "Terry tried to bake the eggplant in the toaster oven but the eggplant",
        "Terry tried to bake the eggplant in the toaster oven but the toaster",
    )
    assert item.continuations == (" was too big.",) * 2
    assert item.answer == 0


def test_answers_are_not_at_one_place():
    for task in TASKS[:3]:
        answers = [item.answer for item in task.load()]
        assert max(answers.count(place) for place in set(answers)) < 0.6 * len(answers)


def test_chance_follows_the_number_of_choices():
    assert chance(PIQA.load()) == 0.5
    assert chance(ARC.load()) == pytest.approx(0.25, abs=1e-3)  # a few have three choices or five


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_missing_or_damaged_file_is_named_with_its_remedy(task, tmp_path):
    with pytest.raises(UserError, match=f"{task.path}.*data/quickstart"):
        task.load(tmp_path)
    file = tmp_path / task.path
    file.parent.mkdir(exist_ok=True)
    whole = task.file().read_bytes()
    for content, problem in [
        (whole[: len(whole) // 2], "is damaged"),
        (b"{}", "is damaged"),
        (gzip.compress(json.dumps({"question": "?"}).encode()), "line 1 is no"),
        (gzip.compress(b"not json\n"), "line 1 is no"),
        (gzip.compress(b""), "is empty"),
    ]:
        file.write_bytes(content)
        with pytest.raises(UserError, match=problem):
            task.load(tmp_path)


def test_cells_of_a_table_are_parted_as_its_heading_is(tmp_path):
    for delimiter in ",;\t":
        (tmp_path / "a.csv").write_text(f'Frage{delimiter}Antwort\r\nWie?{delimiter}"so, und; so"\r\n')
        assert tasks.read_rows(tmp_path / "a.csv") == [{"Frage": "Wie?", "Antwort": "so, und; so"}]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", b"{}", "has no list `examples`"),
        ("a.json", b'{"examples": [1]}', "has no list `examples`"),
        ("a.json", b'{"examples": []}', "is empty"),
        ("a.jsonl", b"[" * 100_000, "line 1 is no item"),
        ("a.csv", b'a\n"an open quote', "is damaged"),
        ("a.csv", b"a\n", "is empty"),
        ("a.parquet", b"PAR1", "is damaged"),
        ("a.csv", "Frage\r\nWie heißt du?\r\n".encode("cp1252"), "save it as UTF-8"),
    ],
)
def test_a_file_without_rows_is_one_line(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=problem):
        tasks.read_rows(tmp_path / name)


def test_a_task_without_items_is_one_line(tmp_path):
    with pytest.raises(UserError, match="task none has no items"):
        Task(name="none", version=1, metric="a", make=lambda split: [], parse=PIQA.parse).load()
    one = replace(CATALOG["bbh_navigate"], path="one.json")
    (tmp_path / "one.json").write_text(json.dumps({"examples": [{"input": "a", "target": "b"}]}))
    with pytest.raises(UserError, match="task bbh_navigate has no items"):
        one.load(tmp_path)


def test_a_label_that_is_no_choice_is_refused():
    with pytest.raises(ValueError, match="answer 2"):
        PIQA.parse({"goal": "g", "sol1": "a", "sol2": "b", "label": 2})
    with pytest.raises(ValueError):
        WINOGRANDE.parse({"sentence": "no blank", "option1": "a", "option2": "b", "answer": "1"})


def test_a_task_of_ones_own_is_the_file_that_the_documentation_shows(tmp_path):
    text = tasks.__doc__ or ""
    example = textwrap.dedent(text[text.index("    from jaxtrain.tasks.task import") :])
    assert len(example.strip().split("\n")) <= 15
    (tmp_path / "capitals.py").write_text(example)
    row = {"country": "France", "cities": ["Rome", "Paris", "Oslo"], "answer": 1}
    (tmp_path / "capitals.jsonl").write_text(json.dumps(row) + "\n")
    found = catalog.find(str(tmp_path / "capitals.py"))
    (item,) = found.load(tmp_path)
    assert item.contexts == ("The capital of France is",) * 3
    assert (item.continuations[item.answer], item.chance) == (" Paris", 1 / 3)
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match="defines no `task`"):
        catalog.find(str(tmp_path / "empty.py"))
    with pytest.raises(UserError, match="NameError"):
        (tmp_path / "empty.py").write_text("tusk")
        catalog.find(str(tmp_path / "empty.py"))


def test_an_answer_that_a_package_raises_at_is_told_once_of_each_error(capsys):
    assert [tasks.nothing("reasoning-gym:x", error) for error in ("KeyError", "KeyError", "TypeError")] == [
        0
    ] * 3
    said = capsys.readouterr().err
    assert said.count("raises KeyError") == said.count("raises TypeError") == 1
