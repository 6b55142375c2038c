"""The page in a browser without a network: nothing is asked for and all is there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.claims import sentence
from harness.report import render_report
from tests.browser import chromium, missing_binaries
from tests.study_factory import Plan, build_study
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(
        bool(missing_binaries()),
        reason=f"not installed: {', '.join(missing_binaries())} (apt install chromium-driver)",
    ),
]

FIGURES = 6
ALL_LIVE = f"return document.querySelectorAll('figure.is-live').length === {FIGURES}"
# How many of the elements take up room on the screen.
SHOWN = """
const sizes = [...document.querySelectorAll('%s')].map(e => e.getBoundingClientRect());
return sizes.filter(r => r.width > 100 && r.height > 60).length"""


def shown(browser, selector):
    return browser.run(SHOWN % selector)


def write(folder: Path, plan: Plan) -> str:
    study = build_study(plan)
    for name, content in render_report(study, generated_utc="2026-01-02T04:00:00Z").items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return sentence(study.findings)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return folder, write(folder, Plan())


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
    browser.wait_for(ALL_LIVE)
    time.sleep(0.5)  # a late request would still be seen
    asked = [u for u in browser.requests() if not u.startswith("chrome://")]
    return address, asked, [entry["message"] for entry in browser.log("browser")]


def test_the_page_asks_for_nothing_and_no_error_is_logged(browser, report):
    address, asked, said = open_page(browser, report[0])
    assert asked == [address]
    assert said == []


@pytest.mark.slow
def test_the_page_shows_sentence_table_and_living_figures(browser, report):
    open_page(browser, report[0])
    text = browser.run("return document.body.innerText")
    assert report[1] in text
    assert shown(browser, "#findings") == 1
    assert shown(browser, "figure .live svg") == FIGURES
    assert shown(browser, "figure .still svg") == 0
    assert browser.run("return document.querySelectorAll('#findings .word').length") == 2


@pytest.mark.slow
def test_hovering_names_the_values(browser, report):
    open_page(browser, report[0])
    browser.run("document.getElementById('grpo-micro-curves').scrollIntoView({block: 'center'})")
    box = browser.run(
        "const r = document.querySelector('#grpo-micro-curves .live svg').getBoundingClientRect();"
        "return [r.left, r.top, r.width, r.height]"
    )
    for share in (0.5, 0.52):
        browser.command(
            "Input.dispatchMouseEvent",
            type="mouseMoved",
            x=box[0] + share * box[2],
            y=box[1] + 0.45 * box[3],
        )
        time.sleep(0.2)
    browser.wait_for("return document.querySelector('#vg-tooltip-element.visible') !== null", 5)
    tip = browser.run("return document.getElementById('vg-tooltip-element').innerText")
    assert "mean over seeds" in tip
    assert browser.log("browser") == []


def test_markup_stays_text_and_nothing_runs(browser, tmp_path):
    plan = Plan(arms=3, hostile=True, failures={"sft-micro.full.s1": "crashed"})
    write(tmp_path, plan)
    address, asked, said = open_page(browser, tmp_path)
    assert (asked, said) == ([address], [])
    text = browser.run("return document.body.innerText")
    assert "<script>alert(1)</script> {{7*7}}" in text
    assert browser.run("return document.scripts.length") == 3


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_never_scrolls_sideways(browser, report, width):
    browser.command(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=800, deviceScaleFactor=1, mobile=width < 600,
    )  # fmt: skip
    try:
        open_page(browser, report[0])
        assert browser.run("return document.documentElement.scrollWidth") <= width
        assert shown(browser, "figure .live svg") == FIGURES
    finally:
        browser.command("Emulation.clearDeviceMetricsOverride")


@pytest.mark.slow
def test_printing_uses_the_static_figures(browser, report):
    open_page(browser, report[0])
    browser.command("Emulation.setEmulatedMedia", media="print")
    try:
        assert shown(browser, "figure .still svg") == FIGURES
        assert shown(browser, "figure .live svg") == 0
    finally:
        browser.command("Emulation.setEmulatedMedia", media="")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data.json", "runs.csv"])
def test_a_download_needs_no_network(browser, report, tmp_path, name):
    open_page(browser, report[0])
    browser.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.run(f"document.querySelector('a[download=\"{name}\"]').click()")
    file, expected = tmp_path / name, (report[0] / name).read_bytes()
    wait_until(lambda: file.exists() and file.read_bytes() == expected, 10)


@pytest.mark.slow
def test_without_scripts_sentence_table_and_static_figures_remain(report):
    with chromium(has_scripts=False) as browser:
        browser.open((report[0] / "index.html").as_uri())
        # The driver's own scripts run in a world apart, so the page can still be asked.
        assert report[1] in browser.run("return document.body.innerText")
        assert shown(browser, "#findings") == 1
        assert shown(browser, "figure .still svg") == FIGURES
        assert shown(browser, "figure .live svg") == 0
        assert browser.run("return document.querySelectorAll('.is-live').length") == 0
