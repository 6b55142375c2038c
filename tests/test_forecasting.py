"""`harness forecast` as a person types it: a file or a study, exit codes, what is printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import run
from harness.forecast_file import load_forecast_file
from harness.forecasting import forecast
from harness.forecasts import FILE, read_forecasts, write_forecasts
from harness.rates import load_rates
from harness.trace_cache import traces
from tests.test_forecast import small_trace
from tests.test_scorecard import estimate, forecasts
from tests.test_study_forecast import make_store


def typed(*words: str) -> Result:
    return CliRunner().invoke(forecast, list(words), standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize("words", [(), ("runs.yaml", "--study", "study")])
def test_a_file_or_a_study_and_not_both(words, capfd):
    assert run(("forecast", *words)) == 2
    assert "expected a FILE of runs, or --study STUDY alone" in capfd.readouterr().err


def test_a_folder_without_a_study_is_refused(tmp_path, capfd):
    assert run(("forecast", "--study", str(tmp_path))) == 2
    assert "holds no study" in capfd.readouterr().err


def test_a_studys_arms_are_forecast_anew_and_kept(tmp_path):
    store = make_store(tmp_path, source="somebody/model")
    write_forecasts(store, forecasts({("sft-micro", "full"): (estimate("rss", 80),)}))
    done = typed("--study", str(store.root))
    assert done.exit_code == 0
    assert "Not forecast: 1 arm (sft-micro.full: its shape is not in the catalog)." in done.output
    (kept,) = read_forecasts(store)
    assert [arm.forecast for arm in kept.arms] == [None]


def test_json_has_a_line_an_arm(tmp_path):
    store = make_store(tmp_path, source="somebody/model")
    done = typed("--study", str(store.root), "--json")
    (line,) = [json.loads(text) for text in done.output.splitlines() if text.startswith("{")]
    assert (line["pair"], line["arm"], line["device"]) == ("sft-micro", "full", "cpu")


def test_a_study_of_which_nothing_can_be_forecast_says_what_was_expected(tmp_path: Path, capfd):
    store = make_store(tmp_path, device="GPU-without-a-size")
    assert run(("forecast", "--study", str(store.root))) == 2
    assert "has no arm whose memory could be forecast" in capfd.readouterr().err
    assert not (store.root / FILE).exists()


GRPO = (
    "{model: meta-llama/Llama-3.2-3B, loop: grpo, batch: 4, accumulation: 8, length: {longest: 512}"
)
NOTE = "the training step alone"


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """Write a file of runs whose traces are in the cache: a stand-in for torch's processes made them."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))

    def write(*runs: str) -> str:
        path = tmp_path / "runs.yaml"
        lines = [f"  r{place}: {run}" for place, run in enumerate(runs)]
        path.write_text("\n".join(["format: 1", "runs:", *lines]), encoding="utf-8")
        line = small_trace().model_dump_json()
        program = f"import sys\nfor _ in sys.stdin: print({line!r}, flush=True)"
        asked = load_forecast_file(path).runs.values()
        questions = [(run.subject("runs.yaml"), run.length.longest) for run in asked]
        traces(questions, command=(sys.executable, "-c", program))
        return str(path)

    return write


def lines_of(done: Result) -> list[dict]:
    return [json.loads(text) for text in done.output.splitlines() if text.startswith("{")]


def test_of_grpo_without_its_sampling_no_gpu_is_said_to_fit(answered):
    path = answered(GRPO + "}")
    said = typed(path).output
    assert NOTE in said
    assert "smallest GPU" not in said
    (line,) = lines_of(typed(path, "--json"))
    assert line["fits"] is None
    assert NOTE in line["notes"][0]


def test_what_samples_stands_beside_the_step_as_a_plan_reckons_it(answered):
    path = answered(
        GRPO + ", sampling: {by: server}}",
        GRPO + ", sampling: {by: transformers, completions: 64}}",
        GRPO + ", sampling: {by: vllm, share: 0.3}, gpu: L40S 48GB}",
    )
    server, transformers, vllm = lines_of(typed(path, "--json"))
    terms = [
        {t["name"]: t["bytes"] for t in line["terms"]} for line in (server, transformers, vllm)
    ]
    assert [set(t) & {"generation", "vLLM pool"} for t in terms] == [
        set(),
        {"generation"},
        {"vLLM pool"},
    ]
    assert terms[2]["vLLM pool"] == int(0.3 * load_rates().gpus["L40S 48GB"].memory_bytes.value)
    assert all(not line["notes"] for line in (server, transformers, vllm))
    assert server["fits"]["16 GB"] == "yes"


def test_a_pool_is_a_share_of_each_card_that_a_run_is_tried_on(answered):
    (line,) = lines_of(typed(answered(GRPO + ", sampling: {by: vllm, share: 0.96}}"), "--json"))
    assert line["fits"]["16 GB"] == "no"
    assert line["fits"]["141 GB"] == "yes"


def test_a_share_of_a_card_that_does_not_hold_vllms_own_weights_is_no_fit(answered):
    """3B weights in bfloat16 are 6 GiB; 0.1 of an L40S is 4.5, of an H200 13."""
    (line,) = lines_of(
        typed(answered(GRPO + ", sampling: {by: vllm, share: 0.1}, gpu: L40S 48GB}"), "--json")
    )
    assert (line["fits"]["48 GB"], line["fits"]["141 GB"]) == ("no", "yes")
    assert line["notes"][0].startswith("on L40S 48GB: vLLM's pool of")


def test_a_longer_run_whose_rows_vary_reserves_more(answered):
    """Every record among its batches finds no block that fits; 200 are drawn where steps are unknown."""
    run = "{model: smollm2, batch: 2, length: {longest: 90, mean: 50}, accumulation: 4"
    path = answered(*(f"{run}{more}}}" for more in (", steps: 2", ", steps: 50", "")))
    short, long, unknown = (
        next(each["bytes"] for each in line["lenses"] if each["lens"] == "torch-reserved")
        for line in lines_of(typed(path, "--json"))
    )
    assert short < long == unknown


@pytest.mark.slow
def test_a_run_that_cant_be_traced_has_a_line_too(answered):
    path = answered("{model: smollm2, batch: 2, length: {longest: 64}}")
    with Path(path).open("a", encoding="utf-8") as file:
        shape = "architecture: llama, hidden: 64, layers: 2, heads: 5, kv_heads: 5, head_dim: 16"
        shape += ", ffn: 128, vocab: 100, is_tied: true"
        file.write(f"\n  odd: {{model: {{{shape}}}, batch: 2, length: {{longest: 64}}}}\n")
    done = typed(path, "--json")
    traced, odd = lines_of(done)
    assert done.return_value == 2
    assert (traced["run"], odd["run"]) == ("r0", "odd")
    assert "not a multiple of the number of attention heads (5)" in odd["error"]
