"""A study as files a person reads: one HTML page, one Markdown report, a brief, the data.

Values in, bytes out; `store` writes them. The page is self-contained and allows itself almost
nothing: scripts run by hash, nothing is fetched, expressions are interpreted instead of compiled.
Its figures are static SVG; where scripts run, the same charts take their place with hovering added.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness import text
from harness.chart_parts import Figure, make_figure, on_paper, unchecked
from harness.charts import curves_spec, memory_spec, memory_title
from harness.claim_rows import WIDTH as CLAIM_WIDTH
from harness.claim_rows import claim_rows
from harness.claim_sentence import has_claims
from harness.device_tables import devices_tables
from harness.export import data_json, runs_csv
from harness.finding_sections import finding_sections
from harness.findings import DRAWING_WIDTH, banners, findings_rows, headline, pair_label
from harness.glossary import CLAIM_GLOSSARY, GLOSSARY
from harness.grade_tables import energy_tables, grades_tables, measurement_tables
from harness.memory_tables import memory_tables, parts_tables
from harness.method import method_text
from harness.palette import DARK
from harness.pool_band import pool_sentence
from harness.provenance import arguments_tables, commands, environment_table
from harness.rate_tables import grid_runs_tables, rates_tables
from harness.repeat_tables import repeats_table
from harness.report_tables import (
    Table,
    arms_of,
    arms_table,
    counted,
    figures_table,
    pairs_table,
    rows_left_out,
)
from harness.reward_tables import integrity_tables
from harness.run_tables import evaluations_table, processes_tables, runs_table, sampler_table
from harness.scorecard_chart import scorecard_figures
from harness.scorecard_tables import scorecard_runs_tables, scorecard_sentence, scorecard_tables
from harness.series import Curves, learning_curves
from harness.source_tables import source_tables
from harness.traces import MemoryTrace, memory_trace
from harness.view import StudyView
from harness.waterfall_chart import (
    is_worth_drawing,
    peak_caption,
    peak_spec,
    peak_title,
    peaks_of,
)

__all__ = ["ReportFiles", "findings_rows", "render_report"]

ReportFiles = dict[str, bytes]  # name inside the report's folder → content


def render_report(view: StudyView, *, generated_utc: str) -> ReportFiles:
    """Render every file of a report: index.html, report.md, brief.md, data and figures."""
    traced = {
        pair: (learning_curves(view, pair), memory_trace(view, pair)) for pair in view.matrix.pairs
    }
    with unchecked():
        figures = [f for pair, both in traced.items() for f in _figures(view, pair, *both)]
        peaks = [f for pair, (_, trace) in traced.items() for f in _peak_figures(view, pair, trace)]
        peaks += scorecard_figures(view)
        sections = finding_sections(view)
    data, runs = data_json(view, traced, generated_utc), runs_csv(view)
    shown = {"figures": figures, "peaks": peaks, "sections": sections}
    values = {**_values(view, generated_utc), **shown}
    drawn = [*figures, *peaks, *(figure for section in sections for figure in section.figures)]
    files = {
        "index.html": _page(values, drawn, data, runs),
        "report.md": _markdown("report.md.j2", values),
        "brief.md": _markdown("brief.md.j2", values),
        "data.json": data,
        "runs.csv": runs,
    }
    return {**files, **{f.file: on_paper(str(f.svg)).encode() for f in drawn}}


def _values(view: StudyView, generated_utc: str) -> dict[str, Any]:
    """Collect what both the page and the Markdown show."""
    results = [r.record.result for r in view.every_run if r.record and r.record.result]
    return {
        "study": text.clean(view.name),
        "matrix": view.study.matrix_name,
        "title": text.clean(view.matrix.title),
        "description": text.clean(view.matrix.description),
        "generated_utc": generated_utc,
        "created_utc": text.clean(view.study.created_utc),
        "harness_version": text.clean(view.study.harness_version),
        "margins_hash": view.study.margins_hash[:12],
        "sentence": headline(view),
        "banners": banners(view),
        "claims": claim_rows(view) if has_claims(view) else [],
        "confidence": f"{100 * view.evidence.confidence:.3g}%",
        "method": method_text(view),
        "repeats": (repeats_table(view, view.repeats),) if view.repeats else (),
        "findings": findings_rows(view),
        "is_post_hoc": view.post_hoc,
        "compared": (pairs_table(view), arms_table(view), *rates_tables(view)),
        "measured": (
            figures_table(view),
            *memory_tables(view),
            *devices_tables(view),
            *grades_tables(view),
            *scorecard_tables(view),
            *processes_tables(view),
            *integrity_tables(view),
        ),
        "forecast": scorecard_sentence(view),
        "warmup_steps": view.matrix.warmup_steps_excluded,
        "runs": (
            runs_table(view),
            *grid_runs_tables(view),
            *parts_tables(view),
            *energy_tables(view),
            *measurement_tables(view),
            *scorecard_runs_tables(view),
            sampler_table(view),
            evaluations_table(view),
        ),
        "provenance": (
            *source_tables(view),
            environment_table(view),
            *(table for pair in view.matrix.pairs for table in arguments_tables(view, pair)),
        ),
        "notes": counted(note for result in results for note in result.notes),
        "unusable_rows": counted(row for result in results for row in rows_left_out(result)),
        "problems": [text.clean(problem) for problem in view.problems],
        "commands": commands(view),
        "glossary": (*GLOSSARY, *CLAIM_GLOSSARY) if has_claims(view) else GLOSSARY,
    }


def _figures(view: StudyView, pair: str, curves: Curves, trace: MemoryTrace | None) -> list[Figure]:
    arms = [arm for name, arm in arms_of(view) if name == pair]
    label = _figure_label(view, pair)
    figures = []
    if curves.line or curves.held_out:
        title = f"{curves.measure[0].upper()}{curves.measure[1:]}, {label}"
        specs = (curves_spec(curves, arms, has_hover=h) for h in (False, True))
        figures.append(make_figure(f"{pair}-curves", title, curves_caption(curves), *specs))
    if trace is not None:
        title = f"Memory over time, {label}"
        specs = (memory_spec(trace, arms, has_hover=h) for h in (False, True))
        figures.append(make_figure(f"{pair}-memory", title, memory_caption(trace), *specs))
    return figures


def _peak_figures(view: StudyView, pair: str, trace: MemoryTrace | None) -> list[Figure]:
    """Draw what the peaks of the memory figure are made of, where that is known."""
    peaks = peaks_of(view, pair, trace.seeds) if trace else {}
    if trace is None or not is_worth_drawing(peaks):
        return []
    title = f"What the {peak_title(peaks)} is made of, {_figure_label(view, pair)}"
    specs = (peak_spec(peaks, has_hover=h) for h in (False, True))
    return [make_figure(f"{pair}-peak", title, peak_caption(peaks, trace.seeds), *specs)]


def _figure_label(view: StudyView, pair: str) -> str:
    """Name a pair in a figure's title, apart from pairs of the same model and data."""
    label = pair_label(view, pair)
    if sum(pair_label(view, name) == label for name in view.matrix.pairs) > 1:
        label += f" · {pair}"
    return label


def curves_caption(curves: Curves) -> str:
    """Say what line, band and points of a learning curve are."""
    line = f"Line: {curves.measure}"
    if curves.window_steps > 1:
        line += f", each step averaged with the {curves.window_steps - 1} before it"
    seeds = max([p.seeds for p in curves.line] + [p.seeds for p in curves.held_out], default=0)
    parts = [f"{line}, mean over {text.plural(seeds, 'seed')}; band: lowest to highest seed."]
    if curves.held_out:
        parts.append("Points: held-out rows, mean over seeds, with the lowest and highest seed.")
    if curves.left_out:
        parts.append(f"Not in the figure, since not ok: {', '.join(curves.left_out)}.")
    return " ".join(parts)


def memory_caption(trace: MemoryTrace) -> str:
    """Name lens, statistic and seeds of a memory figure."""
    on = f", {', '.join(trace.names)}" if trace.names else ""
    what = f"{memory_title(trace)}{on}: highest sample in each slice of time, shaded down to the lowest"
    if trace.devices > 1:
        what += f"; the sum of {trace.devices} GPUs at each instant"
    if trace.is_growth:
        what += "; zero is the worker's reading when the model was about to be loaded"
    seeds = {seed for _, seed in trace.seeds}
    shown = ", ".join(f"{arm} seed {seed}" for arm, seed in trace.seeds)
    which = f"One seed ({next(iter(seeds))})" if len(seeds) == 1 else f"One seed an arm ({shown})"
    return (
        f"{what[0].upper()}{what[1:]}. {which}. Strips: phases of each arm; dot: peak in training."
        + pool_sentence(trace)
    )


def _page(values: dict[str, Any], drawn: list[Figure], data: bytes, runs: bytes) -> bytes:
    """Render the HTML page with its content policy."""
    environment = template_environment(is_html=True)
    style = environment.get_template("page.css.j2").render(dark=DARK)
    if values["claims"]:
        style += environment.get_template("claims.css.j2").render()
    library, script = chart_library(), template_source("page.js")
    charts = {figure.identity: figure.spec for figure in drawn}
    page = environment.get_template("report.html.j2").render(
        **values,
        policy=content_policy((library, script), style),
        # Our own text, hashed in the policy: escaping would change it.
        style=Markup(style),  # noqa: S704
        library=Markup(library),  # noqa: S704
        script=Markup(script),  # noqa: S704
        charts=json_for_script(charts),
        drawing_width=DRAWING_WIDTH,
        claim_width=CLAIM_WIDTH,
        data_uri=_data_uri("application/json", data),
        runs_uri=_data_uri("text/csv;charset=utf-8", runs),
    )
    return page.encode()


def content_policy(scripts: tuple[str, ...], style: str) -> str:
    """Allow exactly these scripts and this style sheet, and images from the page itself."""
    allowed = " ".join(_source_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_source_hash(style)}; "
        "img-src data:; connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def json_for_script(value: Any) -> Markup:
    """Write JSON that can stand inside a script element: nothing in it can end the element."""
    raw = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for character in "<>&":
        raw = raw.replace(character, f"\\u{ord(character):04x}")
    return Markup(raw)  # noqa: S704


@cache
def chart_library() -> str:
    """Bundle vega, vega-lite and vega-embed from vl-convert; takes seconds, so once a process.

    Raises: ValueError if the bundle could end the script element that it stands in.
    """
    library = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    if "</script" in library.lower() or "<!--" in library:
        raise ValueError(
            "found '</script' or '<!--' in vl-convert's bundle; expected neither, since it stands "
            "inside the page; pin vl-convert-python to the version in constraints.txt"
        )
    return library


def _markdown(template: str, values: dict[str, Any]) -> bytes:
    environment = template_environment(is_html=False)
    return environment.get_template(template).render(**values).encode()


def template_environment(*, is_html: bool) -> Environment:
    """Return what renders our templates: strict about names, escaping in HTML."""
    environment = Environment(
        loader=PackageLoader("harness"),
        autoescape=is_html,  # noqa: S701 - Markdown escapes every value with a filter of its own
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = text.markdown
    environment.filters["is_numeric"] = _is_numeric
    return environment


def _is_numeric(table: Table, column: int) -> bool:
    return column in table.numeric


def template_source(name: str) -> str:
    """Read a file beside the templates as it stands."""
    environment = template_environment(is_html=False)
    loader = environment.loader
    assert loader is not None  # noqa: S101 - set two lines up
    return loader.get_source(environment, name)[0]


def _source_hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
