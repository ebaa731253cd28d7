"""The chat page in a real browser: type, stream, stop, regenerate, reload; and no answer becomes markup."""

import pytest
from parrot import TALK, XSS, make_engine, serving
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from jaxtrain.serve.app import ServeApp


@pytest.fixture
def page(browser, address) -> webdriver.Chrome:
    return opened(browser, address, "parrot")


def opened(browser, address: str, model: str) -> webdriver.Chrome:
    """A new conversation, at temperature 0."""
    browser.get(address)
    browser.execute_script("sessionStorage.clear()")
    browser.refresh()
    wait(browser, lambda: browser.find_element(By.ID, "model").text == model)
    set_field(browser, "temperature", "0")
    return browser


def wait(browser, condition) -> None:
    patient = WebDriverWait(browser, 30, 0.05, ignored_exceptions=[StaleElementReferenceException])
    patient.until(lambda _: condition())


def set_field(browser, name: str, value: str) -> None:
    browser.execute_script(f"document.getElementById('{name}').value = arguments[0]", value)


def ask(browser, text: str) -> None:
    browser.find_element(By.ID, "input").send_keys(text, Keys.ENTER)


def log(browser) -> list[tuple[str, str]]:
    """Read at once: while an answer streams, what was found a moment ago may be gone."""
    articles = "return [...document.querySelectorAll('#log article')].map(e => [e.className, e.textContent])"
    return [(kind, text) for kind, text in browser.execute_script(articles)]


def is_shown(browser, name: str) -> bool:
    return browser.find_element(By.ID, name).is_displayed()


def test_a_conversation_streams_and_survives_a_reload(page):
    ask(page, "Count.")
    wait(page, lambda: is_shown(page, "again"))
    assert log(page) == [("user", "Count."), ("assistant", TALK["Count."])]
    assert "tokens/s" in page.find_element(By.ID, "status").text
    assert "parameters in float32, which reads 256 tokens" in page.find_element(By.ID, "card").text
    page.refresh()
    wait(page, lambda: len(log(page)) == 2)
    assert log(page)[1] == ("assistant", TALK["Count."])
    page.find_element(By.ID, "clear").click()
    assert log(page) == []
    page.refresh()
    assert log(page) == []


def test_an_answer_is_stopped_and_asked_for_again(browser, rambler):
    address, engine = rambler
    page = opened(browser, address, "rambler")
    set_field(page, "max_tokens", "230")
    ask(page, "?")
    wait(page, lambda: len(log(page)) == 2 and log(page)[1][1])
    page.find_element(By.ID, "stop").click()
    wait(page, lambda: is_shown(page, "again"))
    assert "stopped" in page.find_element(By.ID, "status").text
    wait(page, lambda: engine.scheduler.busy == 0)
    set_field(page, "max_tokens", "3")
    page.find_element(By.ID, "again").click()
    wait(page, lambda: "cut short" in page.find_element(By.ID, "status").text)
    assert len(log(page)) == 2 and page.find_element(By.ID, "status").text.startswith("3 tokens")


def test_answers_stay_text(page):
    ask(page, "Show me a page.")
    wait(page, lambda: is_shown(page, "again"))
    assert log(page)[1] == ("assistant", XSS)
    page.refresh()
    assert log(page)[1] == ("assistant", XSS) and page.title == "jaxtrain chat"
    assert page.find_elements(By.CSS_SELECTOR, "#log script, #log img") == []
    logged = [line["message"] for line in page.get_log("browser") if "favicon" not in line["message"]]
    assert logged == []


def test_markdown_is_laid_out_and_copied_and_stays_text(page):
    code = "print('<b>*x*</b>')\n\nfor"
    said = f"# Eggs\n\nBoil **water**\nfor `t < 9`:\n\n1. one\n2. *two*\n\n```python\n{code}\n```\n{XSS}"
    page.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    page.execute_script("show('assistant', arguments[0])", said)
    tags = page.execute_script("return [...document.querySelectorAll('article *')].map(e => e.tagName)")
    text, block = ["H3", "P", "STRONG", "CODE", "OL", "LI", "LI", "EM"], ["DIV", "PRE", "CODE", "BUTTON"]
    assert tags == [*text, *block, "P", "BUTTON"]
    assert page.find_element(By.CSS_SELECTOR, "pre").text == code and log(page)[0][1].endswith(XSS)
    read = "navigator.clipboard.readText().then(arguments[0])"
    for button, copied in zip(page.find_elements(By.CSS_SELECTOR, ".copy"), (code, said), strict=True):
        button.click()
        wait(page, lambda button=button: "done" in (button.get_attribute("class") or ""))
        assert page.execute_async_script(read) == copied


def test_an_error_is_shown(page):
    set_field(page, "max_tokens", "100000")
    ask(page, "Count.")
    wait(page, lambda: [kind for kind, _ in log(page)] == ["user", "error"])
    assert "more than the 256 that fit" in log(page)[1][1]
    assert is_shown(page, "send")


def test_a_server_with_a_key_asks_for_it(browser, folder):
    with serving(ServeApp(make_engine(folder, rows=1), api_key="k" * 20)) as address:
        browser.get(address)
        wait(browser, lambda: "API key" in browser.find_element(By.ID, "model").text)
        browser.find_element(By.TAG_NAME, "summary").click()
        browser.find_element(By.ID, "key").send_keys("k" * 20, Keys.TAB)
        wait(browser, lambda: browser.find_element(By.ID, "model").text == "parrot")
        browser.get_log("browser")  # the 401


def test_the_page_fits_a_phone(browser, address):
    browser.set_window_size(500, 800)
    browser.get(address)
    width = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    browser.set_window_size(1280, 900)
    assert width[0] <= width[1]
