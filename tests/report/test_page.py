"""The page in a real browser: phone and desktop, light and dark, no error, words for every picture."""

from pathlib import Path

import pytest


@pytest.mark.parametrize("width", [390, 1280], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_errors_at_any_width(browser, report: Path, width: int, scheme: str):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get((report / "report.html").as_uri())
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    unnamed = "return [...document.querySelectorAll('svg, img')].filter(e => !e.ariaLabel && !e.alt).length"
    assert browser.execute_script(unnamed) == 0
    assert browser.execute_script("return document.querySelectorAll('svg').length") == 12
    paper, ink = browser.execute_script(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    )
    assert (_brightness(paper) > _brightness(ink)) == (scheme == "light")
    curve = "return getComputedStyle(document.querySelector('svg path[style*=\"--ink\"]')).stroke"
    assert abs(_brightness(browser.execute_script(curve)) - _brightness(paper)) > 300
    assert len((report / "report.html").read_bytes()) < 5_000_000
    asked = "return performance.getEntriesByType('resource').length"
    assert browser.execute_script(asked) == 0, "nothing is fetched"


def _brightness(color: str) -> int:
    """0 to 765 of `rgb(r, g, b)`."""
    return sum(int(part) for part in color[color.index("(") + 1 : -1].split(",")[:3])
