"""The house's rule: imports run downwards only, and no ML library is loaded outside worker/."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "harness"
# From the ground up; a module may import only what stands before it.
ORDER = (
    "errors",
    "caches",
    "files",
    "text",
    "frozen",
    "settings",
    "again",
    "claim_spec",
    "spec",
    "catalog",
    "sizes",
    "claim_checks",
    "samples",
    "record",
    "probe",
    "releases",
    "pins",
    "installed",
    "package_folder",
    "packages",
    "layers",
    "environments",
    "translation_table",
    "translation",
    "arguments",
    "objective",
    "matrix_file",
    "matrix_checks",
    "rehearsal",
    "matrix",
    "parity",
    "selection",
    "store",
    "replays",
    "sources",
    "mapping",
    "compute",
    "rates",
    "workload",
    "subject",
    "memory_trace",
    "allocator",
    "heap",
    "memory_replay",
    "row_lengths",
    "step_replay",
    "activations",
    "estimate",
    "evaluation_replay",
    "forecast",
    "moments",
    "forecast_file",
    "forecast_names",
    "tracers",
    "trace_cache",
    "arm_forecast",
    "gpu_classes",
    "forecasts",
    "study_forecast",
    "hub_token",
    "access",
    "lookup",
    "costs",
    "hub",
    "counted",
    "measure",
    "stats",
    "power",
    "equivalence",
    "multiplicity",
    "trend",
    "optimum",
    "integrity",
    "lenses",
    "memory_figures",
    "missed_peak",
    "energy",
    "grade_bounds",
    "grade_faults",
    "strangers",
    "gpu_faults",
    "grade",
    "summary",
    "ratios",
    "rule",
    "claims",
    "verdicts",
    "repeats",
    "trust",
    "view",
    "claim_sentence",
    "series",
    "device_notes",
    "traces",
    "waterfall",
    "palette",
    "report_tables",
    "scorecard",
    "scorecard_tables",
    "grade_tables",
    "device_tables",
    "repeat_tables",
    "method",
    "reward_tables",
    "findings",
    "claim_rows",
    "run_tables",
    "same_pair",
    "memory_tables",
    "rate_tables",
    "source_tables",
    "glossary",
    "provenance",
    "pool_band",
    "chart_parts",
    "charts",
    "waterfall_chart",
    "scorecard_chart",
    "finding_series",
    "finding_charts",
    "finding_tables",
    "finding_figures",
    "finding_sections",
    "export",
    "report",
    "compare",
    "publish",
    "engines",
    "launch",
    "progress",
    "recovery",
    "slots",
    "replaying",
    "looks",
    "plan",
    "study_plan",
    "asking",
    "counting",
    "rounds",
    "preflight",
    "exclusive",
    "schedule",
    "rounds",
    "surroundings",
    "bench",
    "stacks",
    "ready",
    "turns",
    "options",
    "terminal",
    "browse",
    "downloads",
    "outlook",
    "plan_tables",
    "forecast_tables",
    "power_table",
    "planning",
    "forecasting",
    "flops",
    "doctor_check",
    "doctor_needs",
    "doctor_host",
    "doctor_driver",
    "doctor_gpu",
    "doctor_disk",
    "doctor_hub",
    "doctor_engine",
    "doctor_matrix",
    "doctor",
    "doctor_text",
    "checkup",
    "benching",
    "exchange",
    "rerunning",
    "comparing",
    "judging",
    "housekeeping",
    "baseline_card",
    "baselines",
    "promotion",
    "shelf",
    "baselining",
    "bisect",
    "release_list",
    "bisect_question",
    "trial",
    "bisect_text",
    "bisecting",
    "benchmark_json",
    "exporting",
    "cli",
)
# What worker/ may use of the house.
WORKER_MAY = {
    *(
        "errors",
        "caches",
        "files",
        "frozen",
        "settings",
        "probe",
        "claim_spec",
        "spec",
        "catalog",
        "record",
        "samples",
        "releases",
        "translation",
        "subject",
        "memory_trace",
    ),
    *("launch", "measure", "store", "worker"),
}
ML = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "vllm")


def imported_parts(path: Path) -> set[str]:
    """The harness modules a file imports, by the first part after 'harness.'."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("harness."):
            parts.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            parts |= {a.name.split(".")[1] for a in node.names if a.name.startswith("harness.")}
    return parts


def part_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


FILES = [p for p in HOUSE.rglob("*.py") if p.name != "__init__.py" or p.parent != HOUSE]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(HOUSE)))
def test_imports_run_downwards(path):
    part = part_of(path)
    if part == "worker":
        assert imported_parts(path) <= WORKER_MAY
        return
    assert part in ORDER, f"{part} has no place in the order yet"
    allowed = set(ORDER[: ORDER.index(part) + 1])
    assert imported_parts(path) <= allowed


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) != "worker"], ids=str)
def test_no_ml_library_outside_the_worker(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not any(n.split(".")[0] in ML for n in names)


@pytest.mark.parametrize(
    "code",
    [
        "from harness.cli import run; run(['--help'])",
        "import harness.report, harness.view, harness.store",
        "from harness.cli import run; run(['matrix', 'ls'])",
        "from harness.cli import run; run(['doctor', '--matrix', 'blog'])",
    ],
)
def test_help_report_and_matrices_load_no_torch(code):
    check = f"import sys; {code}; sys.exit('torch' in sys.modules or 'trl' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", check], check=False, capture_output=True).returncode
        == 0
    )
