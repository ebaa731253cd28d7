"""Eight emulated CPU devices for every test, and for the processes that a test starts.

The environment says so before JAX is imported, so that a test without JAX does not pay for it.
On a GPU: `JAX_PLATFORMS=cuda .venv/bin/python -m pytest -m gpu`.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from selenium import webdriver

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
# Nearly all of the tests' time is compilation; XLA's backend optimises nothing that they assert.
# On a busy machine eight emulated devices wait for each other for longer than the 40 s at which XLA aborts;
# and they need more threads than there are cores, as `runtime.mesh` says.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_collective_call_terminate_timeout_seconds=300 "
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=120",
)
os.environ.setdefault("NPROC", "64")
# What is compiled is kept for as long as the tests run, for all of their processes: many compile the same.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxtrain-cache-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

LONGEST = """
test_seven_stages test_reward_model test_families test_plan test_loop test_grpo test_ppo test_step test_slots
test_rollout test_moved test_distill test_pretrain_run test_parallel test_finetune_run test_preference
test_adapters test_convert test_integrity test_end_to_end
"""
"""Files that take a minute or more. The second makes configs/tiny, which later ones read."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On several processes the longest files first: none is left alone with one of them at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        order = {name: place for place, name in enumerate(LONGEST.split())}
        items.sort(key=lambda item: order.get(item.path.stem, len(order)))


settings.register_profile("jaxtrain", deadline=None, derandomize=True)  # a slow machine is not a wrong answer
settings.load_profile("jaxtrain")


@pytest.fixture(scope="module")
def browser() -> Iterator["webdriver.Chrome"]:
    """Chromium without a window, which asks nobody on the network; tests of pages are skipped without one."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver are not installed (apt-get install chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--hide-scrollbars", "--window-size=1280,900"),
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()
