"""The rating page in a real browser: the keyboard, reload, undo, and that no answer runs as script."""

from collections.abc import Iterator

import pytest
from parrot import serving
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from jaxtrain.rate.app import RatingApp, ServeConfig
from jaxtrain.rate.store import Sample, Store

XSS = (
    "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\"> "
    "[a](javascript:document.title='run')"
)


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path}/ratings.sqlite") as store:
        for n in range(4):
            prompt = store.add_prompt([{"role": "user", "content": f"question {n}"}])
            texts = (XSS, "second", "third", "fourth") if n == 0 else ("first", "second", "third", "fourth")
            store.add_task(prompt, [Sample(text=text) for text in texts], seed=n)
        yield store


@pytest.fixture
def at(store) -> Iterator[str]:
    """The address of a served page, ann's link in it."""
    app = RatingApp(store, "k" * 32, ServeConfig())
    with serving(app) as address:
        yield f"{address}{app.invite_link('ann')}"


def press(browser: webdriver.Chrome, keys: str) -> None:
    browser.find_element(By.TAG_NAME, "body").send_keys(keys)


def places(browser: webdriver.Chrome) -> list[str]:
    found = browser.find_elements(By.CSS_SELECTOR, "article select")
    return [Select(element).first_selected_option.get_attribute("value") or "" for element in found]


def submitted(browser: webdriver.Chrome, number: int) -> None:
    """Wait for the page that says so many are rated."""
    said = f"{number} rated"
    patient = WebDriverWait(browser, 20, ignored_exceptions=[StaleElementReferenceException])
    patient.until(lambda b: said in b.find_element(By.TAG_NAME, "header").text)


def test_a_rater_ranks_with_the_keyboard(browser, store, at):
    browser.get(at)
    press(browser, "2")
    assert places(browser) == ["", "1", "", ""]
    press(browser, "t")
    press(browser, "4")
    press(browser, "1")
    assert places(browser) == ["2", "1", "3", "1"], "ties share a place; the one that is left is last"
    press(browser, Keys.BACKSPACE)
    assert places(browser) == ["", "1", "", "1"]
    press(browser, "3")
    assert places(browser) == ["3", "1", "2", "1"]

    browser.refresh()
    assert places(browser) == ["3", "1", "2", "1"], "a reload loses nothing"
    press(browser, Keys.ENTER)
    submitted(browser, 1)
    (judged,) = store.comparisons()
    assert (judged.ranks, judged.all_bad, judged.rater) == ([3, 1, 2, 1], False, "ann")
    assert judged.milliseconds > 0

    press(browser, "u")
    submitted(browser, 0)
    assert list(store.comparisons()) == []
    assert places(browser) == ["3", "1", "2", "1"], "undo gives the order back, to be mended"
    press(browser, Keys.ENTER)
    submitted(browser, 1)
    press(browser, "b")
    submitted(browser, 2)
    press(browser, "s")
    submitted(browser, 3)
    assert [(c.ranks, c.all_bad) for c in store.comparisons()] == [([3, 1, 2, 1], False), ([1] * 4, True)]
    assert store.counts()["skipped"] == 1


def test_a_rater_ranks_with_the_mouse_and_an_incomplete_order_is_not_sent(browser, store, at):
    browser.get(at)
    cards = browser.find_elements(By.TAG_NAME, "article")
    cards[3].click()
    cards[0].click()
    browser.find_element(By.CSS_SELECTOR, "button.main").click()
    assert store.counts()["judgements"] == 0, "two answers have no place yet"
    browser.find_element(By.ID, "tie").click()
    cards[1].click()
    Select(cards[2].find_element(By.TAG_NAME, "select")).select_by_value("1")
    assert places(browser) == ["2", "2", "1", "1"]
    browser.find_element(By.CSS_SELECTOR, "button.main").click()
    submitted(browser, 1)
    assert [c.ranks for c in store.comparisons()] == [[2, 2, 1, 1]]


def test_answers_are_text_and_the_console_stays_empty(browser, at):
    browser.get(at)
    assert browser.title == "Rate answers"
    assert browser.find_elements(By.CSS_SELECTOR, "article script, article img, article a") == []
    shown = " ".join(card.text for card in browser.find_elements(By.TAG_NAME, "article"))
    assert "<script>document.title='run'</script>" in shown
    ran = [line for line in browser.get_log("browser") if "favicon" not in line["message"]]
    assert ran == []


def test_the_page_fits_a_phone(browser, at):
    browser.set_window_size(500, 800)
    browser.get(at)
    width = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    browser.set_window_size(1280, 900)
    assert width[0] <= width[1]
