"""reasoning-gym's problems as tasks: the own answer is worth everything, a wrong one less."""

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import catalog

why = "reasoning-gym is not installed"
DATASETS = pytest.importorskip("reasoning_gym.factory", reason=why).DATASETS
ProceduralDataset = pytest.importorskip("reasoning_gym.dataset", reason=why).ProceduralDataset


def grades(name: str) -> tuple[float, float]:
    """Of the own answer, and of a wrong one."""
    task = catalog.find(f"reasoning-gym:{name}")
    row = next(iter(task.make("heldout")))
    item = task.parse(row)
    said = (f"So.\n<answer>{answer}</answer>" for answer in (row["answer"], "no such answer"))
    return tuple(item.grade(text)["score"] for text in said)


COMPARED = [
    name for name, (kind, _) in DATASETS.items() if kind.score_answer is ProceduralDataset.score_answer
]


@pytest.mark.parametrize("name", ["leg_counting", "caesar_cipher", "gcd"])
def test_the_own_answer_is_worth_more_than_a_wrong_one(name):
    own, wrong = grades(name)
    assert own == 1 > wrong


@pytest.mark.slow
def test_every_dataset_that_compares_answers_runs():
    found = {name: grades(name) for name in COMPARED}
    assert len(found) >= 33
    assert {name: pair for name, pair in found.items() if not pair[0] == 1 > pair[1]} == {}


@pytest.mark.parametrize("name", sorted(set(DATASETS) - set(COMPARED)))
def test_a_grader_that_may_run_an_answer_is_refused(name):
    with pytest.raises(UserError, match="code of its own"):
        catalog.find(f"reasoning-gym:{name}")


def test_what_is_practised_is_not_what_is_measured():
    task = catalog.find("reasoning-gym:gcd")
    measured = {row["question"] for row in task.rows()}
    practised = [row["question"] for row in task.rows(split="practice")]
    assert 150 < len(measured) <= 200 and 1_500 < len(practised) <= 2_000
    assert not measured & set(practised)
    with pytest.raises(UserError, match="reasoning-gym:none"):
        catalog.find("reasoning-gym:none")
