"""The forecast against what runs really took: 24 on an H100 (docs/gpu.md), and two public ones.

A step's forecast and the figure that `plan` shows, which is of the highest moment of a run.

Every run of `data/gpu` whose shape is in the catalog is traced here; none has a constant fitted to it but
what NVML shows beyond torch (0.75 GiB).
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from harness.arm_forecast import ArmForecast, forecast_arms
from harness.catalog import MODELS
from harness.estimate import estimate_memory
from harness.forecast import Forecast, forecast_on_cpu, forecast_training, subject_of
from harness.forecast_file import load_forecast_file
from harness.gpu_classes import classes
from harness.memory_replay import Replay
from harness.memory_trace import Trace
from harness.rates import load_rates
from harness.row_lengths import AFTER_A_RECORD, Rows, draw_lengths, draw_run, records
from harness.spec import RunSpec
from harness.subject import Adapter, Subject
from harness.trace_cache import traces
from harness.workload import Workload, workload

DATA = Path(__file__).parent / "data"
MEASURED = json.loads((DATA / "gpu/h100-80gb.json").read_text())
CARD = load_rates(None)
BEYOND = CARD.bare_context_bytes.value
RUNS = [r for r in MEASURED["runs"] if r["spec"]["model"]["source"] in MODELS]
OK = [pytest.param(r, id=r["cell"]) for r in RUNS if r["status"] == "ok"]
EVALUATED = [each for each in OK if "evaluate" in each.values[0]["peak_bytes"]["torch-allocated"]]
# An evaluation was sampled apart from training only in later runs.
APART = [each for each in OK if "evaluate" in each.values[0]["peak_bytes"]["nvml-device"]]

pytestmark = pytest.mark.slow


def spec_of(run: dict) -> RunSpec:
    return RunSpec.model_validate_json(json.dumps(run["spec"]))


@pytest.fixture(scope="module")
def forecasts(tmp_path_factory) -> dict[str, Forecast]:
    """Every run's forecast, by its cell."""
    questions = []
    for run in RUNS:
        spec = spec_of(run)
        load = load_of(run, spec)
        subject = subject_of(spec, MODELS[spec.model.source], load)
        # Every step of these runs had as many tokens as its batch has places: nothing was padded.
        questions.append((subject.model_copy(update={"has_padding": False}), load.length))
    made = {}
    for run, (_, length), trace in zip(RUNS, questions, traces(questions), strict=True):
        assert isinstance(trace, Trace), trace
        made[run["cell"]] = forecast_training(
            trace, Rows(longest=length), batch=1, is_hopper=True, beyond_torch=BEYOND
        )
    return made


def load_of(run: dict, spec: RunSpec) -> Workload:
    """What a run asked of its GPU; in GRPO with the prompts that it had, where `plan` takes 512 tokens.

    All rows of a step there answer one prompt, to the limit, so tokens of the longest step say it.
    """
    load = workload(spec, CARD)
    if is_sft(run):
        return load
    return replace(load, length=run["tokens_per_step"] // load.batch)


def is_sft(run: dict) -> bool:
    return run["spec"]["task"] == "sft"


@pytest.mark.parametrize("run", OK)
def test_a_steps_tensors_are_forecast_within_a_thousandth_where_rows_fill_their_length(
    run, forecasts
):
    measured = run["peak_bytes"]["torch-allocated"]["train"]
    ratio = forecasts[run["cell"]].lens("torch-allocated").bytes / measured
    assert ratio == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize("run", OK)
def test_the_forecast_is_no_worse_than_the_formulas(run, forecasts):
    spec = spec_of(run)
    facts, load = MODELS[spec.model.source], workload(spec, CARD)
    memory = estimate_memory(spec, facts, load, MEASURED["gpu"]["total_bytes"], CARD)
    formulas = memory.total_bytes - memory.bytes_of("overhead") - memory.bytes_of("evaluation")
    measured = run["peak_bytes"]["torch-allocated"]["train"]
    traced = forecasts[run["cell"]].lens("torch-allocated").bytes
    assert abs(traced / measured - 1) <= abs(formulas / measured - 1) + 0.005


@pytest.mark.parametrize("run", OK)
def test_the_interval_covers_what_the_gpu_held_in_steps(run, forecasts):
    held = run["peak_bytes_in_steps"]["nvml-device"]
    device = forecasts[run["cell"]].lens("nvml-device")
    assert device.low_bytes <= held <= device.high_bytes


@pytest.fixture(scope="module")
def planned() -> dict[tuple[str, str], ArmForecast]:
    """What `harness plan` shows of every arm."""
    arms = forecast_arms(
        [spec_of(run) for run in RUNS],
        CARD,
        MEASURED["gpu"]["total_bytes"],
        classes(CARD),
        is_hopper=True,
        has_tiles=True,
    )
    return {(arm.pair, arm.arm): arm for arm in arms}


def plan_of(run: dict, planned: dict[tuple[str, str], ArmForecast]) -> Forecast:
    found = planned[run["spec"]["pair"], run["spec"]["arm"]].forecast
    assert found is not None
    return found


def mask_bytes(run: dict) -> int:
    """What a mask would have added to a step: its numbers, and keys and values for all heads, a layer.

    A plan pads batches of several rows, and no batch of these runs was. Checkpointed layers keep none.
    """
    spec = spec_of(run)
    facts, load = MODELS[spec.model.source], workload(spec, CARD)
    if load.has_checkpointing or load.batch == 1:
        return 0
    numbers = load.length**2
    repeated = 2 * (facts.heads - facts.kv_heads) * facts.head_dim * load.length
    return 2 * facts.layers * load.batch * (numbers + repeated)  # of bfloat16


@pytest.mark.parametrize("run", EVALUATED)
def test_plans_allocated_figure_is_of_the_highest_moment_and_its_interval_covers_it(run, planned):
    """Of GRPO it is higher by what prompts of 512 tokens take, which those runs did not have."""
    phases = run["peak_bytes"]["torch-allocated"]
    measured = max(phases["evaluate"], phases["train"] + mask_bytes(run))
    allocated = plan_of(run, planned).lens("torch-allocated")
    if is_sft(run):
        assert allocated.low_bytes <= measured <= allocated.high_bytes
    assert 0.98 < allocated.bytes / measured < (1.04 if is_sft(run) else 1.15)


@pytest.mark.parametrize("run", APART)
def test_plans_device_figure_covers_what_a_run_with_evaluations_held(run, planned):
    peaks = run["peak_bytes"]
    # torch's own peak is exact; NVML's was sampled and may have missed it.
    held = max(*peaks["nvml-device"].values(), max(peaks["torch-reserved"].values()) + BEYOND)
    device = plan_of(run, planned).lens("nvml-device")
    assert device.low_bytes <= held <= device.high_bytes
    assert device.bytes / held == pytest.approx(1, abs=0.05)


def test_plan_finds_the_gpu_that_holds_full_fine_tuning_in_bfloat16(planned):
    """18.6 GiB were allocated in its evaluation, and 24 GB cards show 22.5."""
    assert planned["sft-1b-bf16", "full"].smallest == "24 GB"


@pytest.fixture(scope="module")
def padded() -> Trace:
    """A step of a loop whose rows are padded to the longest of their batch, and no cache emptied."""
    subject = Subject(
        facts=MODELS["meta-llama/Llama-3.2-1B-Instruct"],
        dtype="bfloat16",
        adapter=Adapter(r=32, target_modules=("q_proj", "v_proj"), lora_alpha=64),
        loop="transformers",
        batch=4,
        has_padding=True,
    )
    found = traces([(subject, 1024)])[0]
    assert isinstance(found, Trace), found
    return found


def reserved_by(trace: Trace, lengths: list[int]) -> int:
    state = Replay(trace, tells_kinds=False)
    for length in lengths:
        state.step(length)
    return state.peak().reserved


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_kept_of_a_run_reserves_as_much_as_all_of_it(seed, padded):
    whole = draw_run(random.Random(seed), Rows(longest=1024, mean=300), batch=4, count=120)
    kept = records(whole, AFTER_A_RECORD)
    assert len(kept) < len(whole) / 2
    assert reserved_by(padded, kept) == pytest.approx(reserved_by(padded, whole), rel=0.005)


def test_where_lengths_vary_the_interval_covers_runs_that_it_was_not_drawn_from(padded):
    rows = Rows(longest=1024, mean=300)
    made = forecast_training(
        padded, rows, batch=4, is_hopper=False, beyond_torch=BEYOND, batches=200
    )
    reserved = made.lens("torch-reserved")
    others = [reserved_by(padded, each) for each in draw_lengths(rows, 4, 40, batches=200)[10:]]
    inside = sum(reserved.low_bytes <= each <= reserved.high_bytes for each in others)
    assert inside >= 27  # of 30


def test_a_run_that_ended_out_of_memory_does_not_fit(forecasts):
    device = forecasts["sft-1b-too-large.full.s0"].lens("nvml-device")
    assert device.low_bytes > MEASURED["gpu"]["total_bytes"]


@pytest.mark.parametrize("name", ["full", "lora-r32"])
def test_the_public_runs_are_forecast_within_seven_percent_and_inside_the_interval(name):
    run = load_forecast_file(DATA / "forecast-public.yaml").runs[name]
    trace = traces([(run.subject(name), run.length.longest)])[0]
    assert isinstance(trace, Trace), trace
    made = forecast_training(
        trace,
        run.length,
        batch=run.batch,
        is_hopper=False,
        empties_every=run.empties_cache_every,
        beyond_torch=BEYOND,
    )
    reserved, measured = made.lens("torch-reserved"), run.measured.gib * 2**30
    assert reserved.bytes == pytest.approx(measured, rel=0.07)
    assert reserved.low_bytes <= measured <= reserved.high_bytes
    assert sum(term.bytes for term in made.terms) == reserved.bytes


def test_peak_growth_of_rss_is_forecast_within_ten_percent_on_the_cpu():
    runs = load_forecast_file(DATA / "forecast-smollm2-runs.yaml").runs
    questions = [(run.subject(name), run.length.longest) for name, run in runs.items()]
    for run, trace in zip(runs.values(), traces(questions), strict=True):
        assert isinstance(trace, Trace), trace
        rss = forecast_on_cpu(trace, run.length.longest).lens("rss")
        assert rss.bytes == pytest.approx(run.measured.gib * 2**30, rel=0.1)
        assert rss.low_bytes <= run.measured.gib * 2**30 <= rss.high_bytes
