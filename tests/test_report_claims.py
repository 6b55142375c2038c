"""A report of claims: every section with its numbers, hostile words, missing runs, margins that moved."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace

import pytest

from harness.claim_rows import claim_rows
from harness.findings import POST_HOC, headline
from harness.matrix import margins_hash, matrix_hash, parse_matrix
from harness.record import Study
from harness.report import chart_library, render_report
from harness.store import Store
from harness.terminal import print_findings
from harness.view import load_view
from tests.browser import chromium, missing_binaries
from tests.claims_study import claims_matrix, claims_plan, claims_study
from tests.study_factory import HOSTILE
from tests.test_report import UTC, Page

# In the order that they stand in; the figures of each.
SECTIONS = {
    "on-capacity": ["capacity-curves", "capacity-ranks"],
    "on-rate-ratio": ["rates-rates"],
    "on-batch": ["batch-gaps"],
    "on-layers": ["layers-layers"],
    "on-rank-free": ["rank-free-ranks"],
    "on-compute": ["compute-flops"],
    "on-memory": ["memory-ratios"],
}
MATRIX = """\
format: 1
name: moved
title: A margin that moves
scale: embedded
seeds: [0, 1, 2]
pairs:
  sft:
    task: sft
    trainer: {max_steps: 20}
    model: {source: "embedded:micro-llama"}
    dataset: {name: micro-steps, train_rows: 60, validation_rows: 14, test_rows: 25}
    margin: 0.1
    margin_reason: a tenth
    arms:
      full: {method: full, trainer: {learning_rate: 1e-4}}
      lora: {method: lora, lora: {r: 4}, trainer: {learning_rate: 1e-3}}
claims:
  as-good:
    rule: match
    sentence: LoRA matches full fine-tuning.
    estimand: held-out NLL
    pair: sft
    arm: lora
    margin: MARGIN
    unit: nats per completion token
    margin_reason: a tenth
    speaks_for: a micro model
"""


@pytest.fixture(scope="module")
def study():
    return claims_study()


@pytest.fixture(scope="module")
def files(study):
    return render_report(study, generated_utc=UTC)


@pytest.fixture(scope="module")
def page(files):
    return Page(files["index.html"].decode())


def shown(files, name):
    return files[name].decode().replace(chart_library(), "")


def test_the_first_screen_has_sentence_claims_and_controls(study, page):
    assert headline(study) in page.text
    rows = claim_rows(study)
    for row in rows:
        for words in (row.sentence, row.plain, row.margin, row.word):
            assert words in page.text
    table = page.text.index("Controls, whose answer is known")
    assert page.text.index(rows[9].sentence) < table < page.text.index(rows[10].sentence)
    drawn = [a for a in page.all("svg") if a.get("class") == "interval"]
    assert len(drawn) == 12 + len(study.findings)
    assert all(a["aria-label"] for a in drawn)


def test_every_subject_has_its_section_with_its_figures(files, page):
    sections = [a["id"] for a in page.all("section") if a.get("id", "").startswith("on-")]
    assert sections == list(SECTIONS)
    wanted = [f"finding-{name}" for names in SECTIONS.values() for name in names]
    figures = [a["id"] for a in page.all("figure")]
    assert figures[: len(wanted)] == wanted
    assert {f"figures/{name}.svg" for name in figures} == {n for n in files if n.endswith(".svg")}
    identities = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(identities) == len(set(identities))


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_the_sections_have_their_numbers(study, files, name):
    text = shown(files, name)
    for number in ("0.677", "0.709", "0.761"):  # counted FLOPs
        assert number in text
    assert re.search("136[\u202f ]192", text)  # parameters of lora-attn and lora-all
    assert "rank 1 falls short, rank 16 open, rank 256 matches" in text
    assert "rank 1 matches, rank 8 matches, rank 32 matches" in text
    assert "Post-training scale" in text
    assert "median step time" in text
    assert "beside it" in text
    assert "Learning rates tried" in text
    assert "Runs that tried learning rates: 48" in text
    gap = next(v for v in study.verdicts if v.claim == "batch").parts[0].effect
    assert f"+{gap.value:.3f}" in text


def test_every_claim_has_its_statistics_one_click_below(page):
    closed = {a["id"] for a in page.all("details") if a.get("id", "").startswith("claim-")}
    links = {a["href"][1:] for a in page.all("a") if a["href"].startswith("#claim-")}
    assert closed == links
    assert len(closed) == 12
    assert not any("open" in a for a in page.all("details"))
    for term in ("Holm's p over all claims", "p equal (TOST)", "Speaks for", "In the blog"):
        assert term in page.text


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_evidence_against_is_listed_by_claim(study, files, name):
    text = shown(files, name)
    against = [line for v in study.verdicts for line in v.against]
    assert against
    assert "Evidence against" in text
    assert all(line in text for line in against)


def test_data_json_has_claims_grid_and_choices(study, files):
    data = json.loads(files["data.json"])
    assert data["format"] == 1
    assert [c["verdict"]["claim"] for c in data["claims"]] == list(study.matrix.claims)
    assert data["claims"][0]["spec"]["margin"] == 0.02
    assert data["claims"][0]["verdict"]["parts"][0]["effect"]["by_seed"][0][0] == 0
    assert len(data["grid"]) == 48
    assert data["grid"][0]["status"] == "ok"
    assert {(c["pair"], c["arm"]): c["learning_rate"] for c in data["choices"]} == study.choices


def test_the_terminal_has_a_row_a_claim_and_what_speaks_against(study, capsys):
    print_findings(study)
    out = " ".join(capsys.readouterr().out.split())
    assert headline(study) in out
    assert "control-starved (positive control) refuted" in out
    assert "Evidence against:" in out


def test_the_brief_fits_a_comment(files):
    assert len(files["brief.md"].decode().splitlines()) <= 20


@pytest.mark.slow
def test_words_of_a_claim_stay_words():
    matrix = claims_matrix(words=" " + HOSTILE, only=("match-rl", "rank-free"))
    files = render_report(claims_study(claims_plan(), matrix), generated_utc=UTC)
    page = Page(files["index.html"].decode())
    assert len(page.all("script")) == 3
    assert page.text.count("<script>alert(1)</script> {{7*7}}") > 6
    assert not any(a.get("href", "").startswith("javascript") for a in page.all("a"))
    for name in ("report.md", "brief.md"):
        source = files[name].decode()
        assert "<script" not in source
        assert "{{" not in source
        assert "\x1b" not in source
        assert not re.search(r"(?<!\\)\]\(javascript", source)
        width = 0
        for line in source.splitlines():
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            assert not cells or not width or cells == width, line
            width = cells


@pytest.mark.slow
def test_claims_without_a_run_render_without_figures():
    study = claims_study()
    bare = replace(study, runs=(), grid=(), flops=())
    files = render_report(bare, generated_utc=UTC)
    page = Page(files["index.html"].decode())
    assert "LoRA matches full fine-tuning in 0 of 3 match claims, 3 not tested" in page.text
    assert [a["id"] for a in page.all("section") if a.get("id", "").startswith("on-")] == [
        *SECTIONS
    ]
    assert not [name for name in files if name.endswith(".svg")]
    assert "not tried" not in page.text
    assert json.loads(files["data.json"])["choices"] == []


def test_claims_whose_runs_all_failed_render_and_say_so():
    matrix = claims_matrix(only=("rank-free", "match-rl"))
    arms = ("full", "lora-r1", "lora-r8", "lora-r32")
    failures = {f"rl.{arm}.s{seed}": "oom-gpu" for arm in arms for seed in range(5)}
    study = claims_study(claims_plan(failures=failures), matrix)
    files = render_report(study, generated_utc=UTC)
    page = Page(files["index.html"].decode())
    assert "rl.lora-r1.s0: oom-gpu" in page.text
    assert {row.word for row in claim_rows(study)} == {"not tested"}
    assert "rank 1 not tested, rank 8 not tested" in page.text


def moved_study(tmp_path, before, after):
    """A study whose claim had one margin before the first run and has another now."""
    store = Store(tmp_path)
    text = MATRIX.replace("MARGIN", before)
    first = parse_matrix(text, "moved.yaml", asks_trl=False)
    store.prepare()
    store.write_study(
        Study(
            matrix_name="moved",
            matrix_text=MATRIX.replace("MARGIN", after),
            matrix_hash=matrix_hash(first, {}),
            margins_hash=margins_hash(first),
            planned=(),
            created_utc=UTC,
            harness_version="0.1.0",
            command="harness bench",
        )
    )
    return load_view(store)


def test_a_margin_that_was_moved_is_post_hoc_everywhere(tmp_path, capsys):
    view = moved_study(tmp_path, "0.1", "0.3")
    files = render_report(view, generated_utc=UTC)
    assert POST_HOC in Page(files["index.html"].decode()).text
    assert "margins, changed after the first run" in Page(files["index.html"].decode()).text
    assert POST_HOC in files["report.md"].decode()
    assert POST_HOC in files["brief.md"].decode()
    print_findings(view)
    assert POST_HOC in capsys.readouterr().out


def test_a_margin_that_stayed_is_not(tmp_path):
    view = moved_study(tmp_path, "0.1", "0.1")
    assert POST_HOC not in render_report(view, generated_utc=UTC)["report.md"].decode()


@pytest.mark.slow
@pytest.mark.chromium
@pytest.mark.skipif(bool(missing_binaries()), reason=f"not installed: {missing_binaries()}")
def test_twelve_claims_fit_the_first_screen_and_every_figure_lives(files, tmp_path):
    (tmp_path / "index.html").write_bytes(files["index.html"])
    with chromium() as browser:
        for width in (1280, 400):
            browser.command(
                "Emulation.setDeviceMetricsOverride",
                width=width, height=800, deviceScaleFactor=1, mobile=width < 600,
            )  # fmt: skip
            browser.open((tmp_path / "index.html").as_uri())
            figures = browser.run("return document.querySelectorAll('figure').length")
            live = "return document.querySelectorAll('figure.is-live').length"
            browser.wait_for(f"{live} === {figures}", 60)
            assert browser.run("return document.documentElement.scrollWidth") <= width
            if width == 1280:
                end = "document.getElementById('findings').getBoundingClientRect().bottom"
                assert browser.run(f"return {end}") <= 800
        time.sleep(0.2)
        assert [entry["message"] for entry in browser.log("browser")] == []
