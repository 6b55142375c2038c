"""What stands beside a traced step: pools, buckets, sampling; and what is not traced, with the reason."""

from __future__ import annotations

import sys
from typing import Literal

import pytest

from harness.arm_forecast import (
    ArmForecast,
    forecast_arms,
    question,
    training_on_cpu,
    training_on_gpu,
)
from harness.estimate import estimate_memory
from harness.forecast import Forecast
from harness.settings import Parallel
from harness.sizes import count_groups, count_lora
from harness.spec import RunSpec
from harness.trace_cache import traces
from harness.workload import workload
from tests.plan_matrix import CARD, H100, facts_of, run_of
from tests.test_forecast import small_trace

WHY = "torch, transformers, trl and peft are not all installed"


def spread(spec: RunSpec, strategy: Literal["ddp", "fsdp2", "zero3"]) -> RunSpec:
    return spec.model_copy(update={"parallel": Parallel(processes=4, strategy=strategy)})


def traced(spec: RunSpec) -> Forecast:
    made = training_on_gpu(spec, small_trace(), CARD, H100, is_hopper=True)
    assert made is not None
    assert made.source == "traced"
    return made


def bytes_of(forecast: Forecast, name: str) -> int:
    return sum(term.bytes for term in forecast.terms if term.name == name)


def test_a_colocated_engines_pool_is_on_the_device_and_not_in_torch():
    alone, beside = (
        traced(run_of("grpo-8b.lora-r1", use_vllm=False)),
        traced(run_of("grpo-8b.lora-r1")),
    )
    pool = int(0.3 * H100)
    assert bytes_of(beside, "vLLM pool") == pool
    device, reserved = beside.lens("nvml-device"), beside.lens("torch-reserved")
    assert device is not None
    assert reserved is not None
    assert device.bytes - reserved.bytes == pool + CARD.bare_context_bytes.value
    assert bytes_of(alone, "generation") > 0  # transformers' cache of 32 completions
    assert bytes_of(beside, "generation") == 0


def keep_trace(spec: RunSpec) -> None:
    """Put the small trace where an arm's own would lie: a stand-in for torch's processes makes it."""
    asked = question(spec, CARD)
    assert not isinstance(asked, str)
    line = small_trace().model_dump_json()
    program = f"import sys\nfor _ in sys.stdin: print({line!r}, flush=True)"
    traces([asked], command=(sys.executable, "-c", program))


@pytest.mark.parametrize(("cell", "source"), [("lora-r1", "traced"), ("full", "formulas")])
def test_a_card_whose_share_does_not_hold_vllms_own_weights_is_no_fit(
    cell, source, tmp_path, monkeypatch
):
    """8B weights in bfloat16 are 15 GiB; 0.12 of an H100 are 9.6, of an H200 17."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    small, larger = (
        run_of(f"grpo-8b.{cell}", vllm_gpu_memory_utilization=share) for share in (0.12, 0.25)
    )
    if source == "traced":
        keep_trace(small)
    sizes = {name: CARD.gpus[name].memory_bytes.value for name in ("H100 80GB", "H200 141GB")}

    def forecast(spec: RunSpec) -> ArmForecast:
        (made,) = forecast_arms([spec], CARD, H100, sizes, is_hopper=True, has_tiles=True)
        assert made.forecast is not None
        assert made.forecast.source == source
        return made

    assert forecast(small).fits == {"H100 80GB": "no", "H200 141GB": "yes"}
    assert forecast(small).smallest == "H200 141GB"
    assert forecast(larger).smallest == "H100 80GB"


@pytest.mark.parametrize("arm", ["full", "lora-r256"])
def test_ddp_holds_the_gradients_once_more(arm):
    spec = run_of(f"sft-8b.{arm}")
    facts = facts_of(spec)
    lora = spec.lora
    count = count_lora(facts, lora.r, lora.target_modules) if lora else count_groups(facts).total
    one, four = traced(spec), traced(spread(spec, "ddp"))
    assert bytes_of(four, "DDP's buckets") == 4 * count
    alone, shared = one.lens("torch-reserved"), four.lens("torch-reserved")
    assert alone is not None
    assert shared is not None
    assert shared.bytes - alone.bytes == 4 * count


def test_held_out_evaluations_are_no_part_of_training():
    spec = run_of("sft-8b.lora-r256")
    assert bytes_of(traced(spec), "evaluation") == 0
    formulas = training_on_gpu(spec, WHY, CARD, H100, is_hopper=True)
    assert formulas is not None
    assert formulas.source == "formulas"
    assert bytes_of(formulas, "evaluation") == 0


def test_where_evaluations_are_left_out_what_comes_after_them_is_the_highest_moment():
    spec = run_of("grpo-8b.lora-r1", use_vllm=False)
    larger = spec.evaluation.model_copy(update={"batch_size": 4096})
    both = spec.model_copy(update={"evaluation": larger})
    load, facts = workload(both, CARD), facts_of(both)
    whole = estimate_memory(both, facts, load, H100, CARD)
    assert whole is not None
    assert whole.bytes_of("evaluation") > 0
    assert whole.bytes_of("generation") == 0
    formulas = training_on_gpu(both, WHY, CARD, H100, is_hopper=True)
    assert formulas is not None
    assert bytes_of(formulas, "evaluation") == 0
    assert bytes_of(formulas, "generation") > 0
    assert bytes_of(formulas, "overhead") < whole.bytes_of("overhead")


def test_on_a_cpu_nothing_is_forecast_without_a_trace():
    spec = run_of("sft-8b.full")
    assert training_on_cpu(spec, WHY, CARD) is None
    made = training_on_cpu(spec, small_trace(), CARD)
    assert made is not None
    assert [each.lens for each in made.lenses] == ["rss"]


def test_what_is_not_traced_says_why():
    spec = run_of("sft-8b.full")
    assert question(spread(spec, "fsdp2"), CARD) == "sharded over 4 GPUs"
    assert question(spread(spec, "ddp"), CARD, "cpu") == "4 processes on a CPU"
    assert question(run_of("grpo-8b.lora-r1"), CARD, "cpu") == "a vLLM beside it on a CPU"
    assert (
        question(run_of("sft-8b.full", optim="galore"), CARD)
        == "its optimizer (galore) is not traced"
    )
    found = question(spec, CARD, "cpu")
    assert not isinstance(found, str)
    subject, length = found
    assert (subject.device, length) == ("cpu", 2048)
