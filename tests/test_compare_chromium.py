"""The page of a comparison in a browser without a network: nothing is asked for and all is there."""

from __future__ import annotations

import time

import pytest

from harness.compare.explain import explain
from harness.compare.page import write_files
from tests.browser import chromium, missing_binaries
from tests.comparison_pages import HOSTILE, make, only, with_text

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(
        bool(missing_binaries()),
        reason=f"not installed: {', '.join(missing_binaries())} (apt install chromium-driver)",
    ),
]

LIVE = "return document.querySelectorAll('figure:not(.is-live)').length === 0"


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


def open_page(browser, folder):
    """Open the page and return what its load asked for and what the console said."""
    browser.open("about:blank")
    browser.log("browser")
    browser.requests()
    address = (folder / "index.html").as_uri()
    browser.open(address)
    browser.wait_for(LIVE)
    time.sleep(0.5)  # a late request would still be seen
    asked = [url for url in browser.requests() if not url.startswith("chrome://")]
    return asked == [address], [entry["message"] for entry in browser.log("browser")]


def test_the_page_asks_for_nothing_and_says_all_on_its_first_screen(browser, tmp_path):
    made = make(only("grpo", gradients=lambda g: 2 * g), trl=("0.22.1", "0.22.2"))
    comparison = explain(*made.all)
    write_files(tmp_path, comparison, made.base, made.candidate)
    assert open_page(browser, tmp_path) == (True, [])
    assert browser.run("return document.querySelectorAll('figure .live svg').length") == 4
    for part in ("#answer", "#controls", "table.cells", "#notices", ".causes li"):
        box = browser.run(
            f"const r = document.querySelector('{part}').getBoundingClientRect(); return [r.top, r.bottom]"
        )
        assert 0 < box[0] < box[1] <= 800, part


@pytest.mark.slow
def test_a_link_of_the_matrix_opens_the_cells_differences(browser, tmp_path):
    made = make(only("grpo", gradients=lambda g: 2 * g))
    write_files(tmp_path, *made.all)
    open_page(browser, tmp_path)
    browser.run("document.querySelector('table.cells a').click()")
    browser.wait_for("return document.querySelector('#differences details[open]') !== null", 5)


@pytest.mark.slow
def test_markup_stays_text_and_the_page_never_scrolls_sideways(browser, tmp_path):
    made = with_text(HOSTILE, 3)
    write_files(tmp_path, *made.all)
    assert open_page(browser, tmp_path) == (True, [])
    assert browser.run("return document.scripts.length") == 3
    assert browser.run("return document.documentElement.scrollWidth") <= 1280
