"""The pictures of README: the report, the rating page and the chat, as they are in a browser.

    python docs/pictures/make.py RUN MODEL

RUN: a finished run of the recipe `quickstart` or `tiny`. MODEL: the folder that talks. Needs chromium and
chromedriver; nothing leaves this machine.
"""

import base64
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

HERE = Path(__file__).parent
SIZE = {"width": 1000, "height": 900, "deviceScaleFactor": 1, "mobile": False}
QUALITY, MOST = 60, 150_000
QUESTIONS = ("What is the capital of France?", "Give me three tips for a good night's sleep.")


def main(run: Path, model: str) -> None:
    command = [sys.executable, "-m", "jaxtrain"]
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        subprocess.run([*command, "report", str(run), "--out", f"{folder}/report"], check=True)
        browser.get(f"file://{folder}/report/report.html")
        take(browser, "report")
        shutil.copy(run / "6_rate" / "ratings.sqlite", folder)
        rate = (
            f"rate serve --database {folder}/ratings.sqlite --secret_file {folder}/key --overlap 9 --port 0"
        )
        with served([*command, *rate.split(), "--invite", "Ann"], r"Ann +(http\S+)") as address:
            browser.get(address)
            browser.find_element(By.TAG_NAME, "body").send_keys("2")
            take(browser, "rating")
        with served([*command, "serve", model, "--port", "0"], r"chat at (http\S+/),") as address:
            browser.get(address)
            browser.execute_script("document.getElementById('temperature').value = 0")
            for question in QUESTIONS:
                browser.find_element(By.ID, "input").send_keys(question, Keys.ENTER)
                wait(browser, lambda: browser.find_element(By.ID, "again").is_displayed())
            # how fast this machine was at that moment is no part of the picture
            browser.execute_script("document.getElementById('status').textContent = ''")
            take(browser, "chat")
    if (size := sum(file.stat().st_size for file in HERE.glob("*.webp"))) > MOST:
        raise SystemExit(f"the pictures have {size:,} bytes together, more than {MOST:,}: lower QUALITY")


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SIZE)
    yield browser
    browser.quit()


@contextmanager
def served(command: list[str], address: str) -> Iterator[str]:
    """What a server's lines say of its address."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(address, line):
            break
    else:
        raise SystemExit(f"{' '.join(command)} ended early")
    yield found[1]
    server.terminate()
    server.wait()


def wait(browser: webdriver.Chrome, condition: Callable[[], bool]) -> None:
    WebDriverWait(browser, 120, 0.2).until(lambda _: condition())


def take(browser: webdriver.Chrome, name: str) -> None:
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    (HERE / f"{name}.webp").write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
