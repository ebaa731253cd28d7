"""reasoning-gym's problems as tasks: the own answer is worth everything, a wrong one less."""

import json

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import catalog

reasoning_gym = pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
from reasoning_gym.factory import DATASETS  # noqa: E402

# boxnet and rush_hour tell no answer of their own, composite is of others, and the last takes every answer
WITHOUT = {"boxnet", "rush_hour", "composite", "game_of_life_halting"}
OWN = {
    "graph_color": lambda about: json.dumps(about["possible_answer"]),
    "propositional_logic": lambda about: about["example_answer"],
    "rubiks_cube": lambda about: about["example_correct_answer"],
}


def grades(name: str) -> tuple[float, float]:
    """Of the own answer, and of a wrong one."""
    task = catalog.find(f"reasoning-gym:{name}")
    row = next(iter(task.make("heldout")))
    item = task.parse(row)
    own = OWN[name](row["metadata"]) if name in OWN else row["answer"]
    said = (f"So.\n<answer>{answer}</answer>" for answer in (own, "no such answer"))
    return tuple(item.grade(text)["score"] for text in said)


@pytest.mark.parametrize("name", ["leg_counting", "chain_sum", "prime_factorization", "graph_color"])
def test_the_own_answer_is_worth_more_than_a_wrong_one(name):
    own, wrong = grades(name)
    assert own == 1 > wrong


@pytest.mark.slow
def test_a_hundred_datasets_run():
    names = sorted(set(DATASETS) - WITHOUT)
    found = {name: grades(name) for name in names}
    assert len(names) >= 100
    assert {name: pair for name, pair in found.items() if not pair[0] == 1 > pair[1]} == {}


def test_what_is_practised_is_not_what_is_measured():
    task = catalog.find("reasoning-gym:chain_sum")
    measured = {row["question"] for row in task.rows()}
    practised = [row["question"] for row in task.rows(split="practice")]
    assert 150 < len(measured) <= 200 and 1_500 < len(practised) <= 2_000
    assert not measured & set(practised)
    with pytest.raises(UserError, match="reasoning-gym:none"):
        catalog.find("reasoning-gym:none")
