"""A report as files: what is in them, what can't get out of them, and how large they are."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import time
from contextlib import nullcontext
from html.parser import HTMLParser

import pytest

from harness.claims import sentence
from harness.findings import DRAWING_WIDTH, banners, findings_rows
from harness.report import chart_library, json_for_script, render_report
from tests.study_factory import Plan, build_study

UTC = "2026-01-02T04:00:00Z"
FAILURES = {
    "sft-micro.full.s1": "oom-gpu",
    "grpo-micro.lora-r1.s0": "missing",
    "grpo-micro.full.s2": "crashed",
}


class Page(HTMLParser):
    """Collects elements, their attributes, and text outside scripts and styles."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self._inside: str | None = None
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in self.raw:
            self._inside = tag
            self.raw[tag].append("")

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside:
            self.raw[self._inside][-1] += data
        else:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def study():
    return build_study()


@pytest.fixture(scope="module")
def files(study):
    return render_report(study, generated_utc=UTC)


@pytest.fixture(scope="module")
def page(files):
    return Page(files["index.html"].decode())


@pytest.fixture(scope="module")
def hostile_study():
    return build_study(Plan(arms=3, hostile=True, failures=FAILURES, problems=("r: truncated",)))


@pytest.fixture(scope="module")
def hostile(hostile_study):
    return render_report(hostile_study, generated_utc=UTC)


def test_a_report_has_every_file(files):
    kinds = ("curves", "memory", "peak")
    figures = {f"figures/{t}-micro-{f}.svg" for t in ("sft", "grpo") for f in kinds}
    assert set(files) == figures | {"index.html", "report.md", "brief.md", "data.json", "runs.csv"}


def test_the_first_screen_says_it_all(study, page):
    assert sentence(study.findings) in page.text
    assert "says nothing about 8B models" in page.text
    for row in findings_rows(study):
        for shown in (row.gap, row.memory, row.speed, row.word, row.memory_statistic):
            assert shown in page.text
    assert [f["id"] for f in page.all("figure")] == [
        "sft-micro-curves", "sft-micro-memory", "grpo-micro-curves", "grpo-micro-memory",
        "sft-micro-peak", "grpo-micro-peak",
    ]  # fmt: skip


def test_figures_and_drawings_are_named_for_screen_readers(page):
    pictures = [a for a in page.all("svg") if a.get("role") == "img"]
    assert len(pictures) == len(page.all("svg")) == 8  # 6 figures, 2 interval drawings
    assert all(a["aria-label"] for a in pictures)
    assert len(page.all("figcaption")) == 6
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))


def test_scripts_and_style_are_allowed_by_hash_alone(page):
    policy = next(
        m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"
    )
    executed = [
        source
        for source, attributes in zip(page.raw["script"], page.all("script"), strict=True)
        if attributes.get("type") != "application/json"
    ]
    sources = [*executed, *page.raw["style"]]
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in sources]
    assert all(f"'sha256-{h}'" in policy for h in hashes)
    assert len(re.findall("sha256-", policy)) == 3
    assert "unsafe" not in policy
    for part in (
        "default-src 'none'",
        "connect-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ):
        assert part in policy
    assert not any(name.startswith("on") or name == "style" for _, a in page.elements for name in a)


def test_nothing_is_loaded_from_elsewhere(page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")) or tag == "a"
    links = [a["href"] for a in page.all("a") if not a["href"].startswith(("#", "data:"))]
    assert links == ["data.json", "runs.csv", "report.md"]


def test_downloads_inside_the_page_are_the_files(files, page):
    for name in ("data.json", "runs.csv"):
        link = next(a["href"] for a in page.all("a") if a.get("download") == name)
        assert base64.b64decode(link.split(",", 1)[1]) == files[name]


@pytest.mark.slow
def test_a_large_study_stays_small_and_quick():
    """20 runs, up to 150 steps, memory at 20 Hz; the limit leaves room for a slow machine."""
    study = build_study(Plan(seeds=(0, 1, 2, 3, 4)))
    assert len(study.runs) == 20
    begin_s = time.process_time()
    rendered = render_report(study, generated_utc=UTC)
    assert time.process_time() - begin_s < 30
    assert len(rendered["index.html"]) < 3_000_000


def test_data_json_holds_the_findings_and_no_nan(study, files):
    def refuse(constant):
        raise AssertionError(constant)

    data = json.loads(files["data.json"], parse_constant=refuse)
    assert data["format"] == 1
    assert data["sentence"] == sentence(study.findings)
    assert [f["word"] for f in data["findings"]] == [f.word for f in study.findings]
    assert data["findings"][0]["tokens_per_s_ratio"]["n"] == 3
    assert len(data["runs"]) == 12
    assert data["environments"][data["runs"][0]["environment_index"]]["versions"]["trl"] == "1.16.0"
    assert data["figures"]["sft-micro"]["memory"]["slices"][0].keys() == {
        "arm", "t_s", "low_bytes", "high_bytes",
    }  # fmt: skip


def test_runs_csv_has_a_row_per_planned_run(hostile_study, hostile):
    rows = list(csv.DictReader(io.StringIO(hostile["runs.csv"].decode())))
    assert len(rows) == len(hostile_study.runs) == 18
    by_cell = {r["run"]: r for r in rows}
    assert by_cell["grpo-micro.lora-r1.s0"]["status"] == "not run"
    assert by_cell["grpo-micro.lora-r1.s0"]["trained"] == ""
    assert by_cell["sft-micro.full.s1"]["status"] == "oom-gpu"
    ok = by_cell["sft-micro.full.s0"]
    assert int(ok["growth_rss_training_bytes"]) < int(ok["peak_rss_training_bytes"])
    assert not any(v.startswith(("=", "@", "+")) for r in rows for v in r.values())


def test_failed_runs_are_shown_and_counted(hostile_study, hostile):
    page = Page(hostile["index.html"].decode())
    assert "Incomplete study: 16 of 18 runs finished." in page.text
    assert "oom-gpu" in page.text
    assert "Not in the figure, since not ok: full.s1: oom-gpu." in page.text
    assert "r: truncated" in page.text
    assert [b.kind for b in banners(hostile_study)] == ["scale", "incomplete", "problem"]


def test_markup_from_outside_is_text_in_the_page(files, hostile):
    plain, page = Page(files["index.html"].decode()), Page(hostile["index.html"].decode())
    assert len(page.all("script")) == len(plain.all("script")) == 3
    assert "<script>alert(1)</script> {{7*7}}" in page.text
    assert "49" not in re.findall(r"script> (\S+) \|", page.text)
    data = json.loads(next(s for s in page.raw["script"] if s.startswith("{")))
    kinds = ("curves", "memory", "peak")
    assert set(data) == {f"{t}-micro-{f}" for t in ("sft", "grpo") for f in kinds}
    assert not any(a.get("href", "").startswith("javascript") for a in page.all("a"))


@pytest.mark.parametrize("name", ["report.md", "brief.md"])
def test_markup_from_outside_is_text_in_markdown(hostile, name):
    source = hostile[name].decode()
    assert "<script" not in source
    assert "{{" not in source
    assert "\x1b" not in source
    assert not re.search(r"(?<!\\)\]\(javascript", source)
    for line in source.splitlines():
        if line.startswith("|"):
            assert line.endswith("|") or line.endswith("| ")


def test_markdown_tables_are_whole(hostile):
    """Every row of a table has as many cells as its header."""
    width = 0
    for line in hostile["report.md"].decode().splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        width = width or cells
        assert cells == width, line


def test_markdown_shows_the_same_rows_and_figures(study, files):
    source = files["report.md"].decode()
    for row in findings_rows(study):
        assert row.gap in source
        assert row.word in source
    figures = re.findall(r"!\[.*?\]\((figures/.*?)\)", source)
    assert figures
    assert set(figures) <= set(files)


def test_the_brief_fits_a_comment(hostile, files):
    for rendered in (files, hostile):
        assert len(rendered["brief.md"].decode().splitlines()) <= 20


@pytest.mark.parametrize("name", ["index.html", "report.md", "brief.md", "data.json", "runs.csv"])
def test_nothing_names_a_place_or_a_host(hostile, name):
    source = hostile[name].decode().replace(chart_library(), "")
    for private in ("/home/", "/usr/local", "someone/", "a-host-name-to-hide", "/work/"):
        assert private not in source


def test_no_control_codes_anywhere(hostile):
    for name, content in hostile.items():
        source = content.decode()
        source = source.replace(chart_library(), "")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u2028\u2029]", source), name


def test_json_can_not_end_its_script_element():
    value = {"a": "</script><!-- & \u2028"}
    source = str(json_for_script(value))
    assert not re.search("[<>&\u2028]", source)
    assert json.loads(source) == value


@pytest.mark.slow
def test_the_same_study_gives_the_same_bytes(study, files):
    again = render_report(study, generated_utc=UTC)
    assert again == files


def test_a_study_that_has_not_run_still_renders():
    failures = {
        f"{t}-micro.{a}.s{s}": "missing"
        for t, arms in (("sft", ("full", "lora-r32")), ("grpo", ("full", "lora-r1")))
        for a in arms
        for s in range(3)
    }
    rendered = render_report(build_study(Plan(failures=failures)), generated_utc=UTC)
    page = Page(rendered["index.html"].decode())
    assert "Incomplete study: 0 of 12 runs finished." in page.text
    assert "not tested" in page.text
    assert "nothing to draw" in page.text
    assert not [name for name in rendered if name.startswith("figures/")]


def test_an_interval_drawing_stays_inside_its_frame():
    for plan in (Plan(), Plan(seeds=(0, 1)), Plan(seeds=(0,))):
        for row in findings_rows(build_study(plan)):
            places = [row.drawing.zero, row.drawing.margin, row.drawing.value]
            places += [p for p in (row.drawing.low, row.drawing.high) if p is not None]
            assert all(0 <= p <= DRAWING_WIDTH for p in places)
            assert row.drawing.zero < row.drawing.margin


@pytest.mark.slow
def test_a_report_draws_without_altairs_checks_what_it_draws_with_them(monkeypatch):
    study = build_study(Plan(seeds=(0,), hz=2.0))
    quick = render_report(study, generated_utc=UTC)
    monkeypatch.setattr("harness.report.unchecked", nullcontext)
    assert render_report(study, generated_utc=UTC) == quick
