import pytest

from jaxtrain.clean.language import detect

RIGHTS = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft begabt.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом.",
}


@pytest.mark.parametrize("name", RIGHTS)
def test_the_likeliest_language_comes_first(name):
    found = detect(RIGHTS[name])
    assert next(iter(found)) == name
    assert found[name] > 0.65


def test_the_whole_text_counts_and_not_its_first_80_characters():
    assert next(iter(detect(RIGHTS["en"] + (" " + RIGHTS["de"]) * 8))) == "de"


def test_a_table_of_numbers_does_not_hide_the_language():
    table = "\n".join(f"| {i} x {j} | = {i * j} |" for i in range(9) for j in range(9))
    assert detect(f"{RIGHTS['en']}\n{table}")["en"] > 0.65


def test_nothing_is_said_of_a_text_too_short_to_tell():
    assert detect("PART I.") == {}
