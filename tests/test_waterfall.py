"""A peak taken apart: the parts are counted or read, and add up to what was measured, exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.activations import Term
from harness.forecast import Forecast
from harness.forecasts import ArmMemory, Forecasts
from harness.lenses import assign_phases
from harness.record import Distributed, Generation, ParameterCounts
from harness.summary import summarise
from harness.waterfall import ACTIVATIONS, LOGITS, OTHERS, REST, waterfall_of
from tests.gpu_study import ADAPTER, CONTEXT, GIB, RESERVED, WEIGHTS, Hardware, build_gpu_study
from tests.study_factory import Plan, build_study

FEW = Plan(arms=2, seeds=(0,))
STUDY = build_gpu_study(plan=FEW)
SFT = ("sft",)


def run_of(study, cell):
    return next(r for r in study.runs if r.planned.cell == cell)


FULL, LORA = (run_of(STUDY, f"sft-micro.{arm}.s0") for arm in ("full", "lora-r32"))


def changed(run, resolved=None, **result):
    """A run whose result or resolved arguments say something else."""
    record = run.record.model_copy(update={"result": run.record.result.model_copy(update=result)})
    return replace(run, record=record, resolved_config={**run.resolved_config, **(resolved or {})})


def parts_of(run):
    found = waterfall_of(run)
    assert sum(part.bytes for part in found.parts) == found.total_bytes
    return {part.name: part.bytes for part in found.parts}, found


def test_full_fine_tuning_in_fp32_is_weights_gradients_and_two_moments():
    parts, found = parts_of(FULL)
    reserved = int(RESERVED["full"]["train"] * GIB)
    assert parts == {
        "context and libraries": CONTEXT,
        "weights": 4 * WEIGHTS,
        "optimizer state": 8 * WEIGHTS,
        "gradients": 4 * WEIGHTS,
        "fragmentation": reserved - int(0.96 * reserved),
        REST: int(0.96 * reserved) - 16 * WEIGHTS,
    }
    assert (found.lens, found.total_bytes, found.notes) == ("nvml-device", reserved + CONTEXT, ())
    assert found.total_bytes == FULL.summary.peak_bytes["nvml-device"]["training"]


@pytest.mark.parametrize(
    ("dtypes", "base"),
    [(["torch.float32"], 4), (["torch.bfloat16", "torch.float32"], 2)],
)
def test_a_frozen_base_has_its_own_width_and_the_adapter_its_own(dtypes, base):
    parts, _ = parts_of(changed(LORA, {"dtypes": dtypes}))
    assert parts["weights"] == base * WEIGHTS + 4 * ADAPTER
    assert parts["gradients"] == 4 * ADAPTER
    assert parts["optimizer state"] == 8 * ADAPTER


@pytest.mark.parametrize(
    ("resolved", "absent"),
    [
        ({"dtypes": ["torch.uint8", "torch.float32"]}, {"weights"}),
        ({"dtypes": []}, {"weights"}),
        ({"trainable_dtypes": []}, {"weights", "gradients", "optimizer state"}),
        ({"arguments": {"optim": "adamw_bnb_8bit"}}, {"optimizer state"}),
        ({"arguments": {"optim": "sgd"}}, {"optimizer state"}),
    ],
)
def test_what_cant_be_counted_stays_with_the_rest(resolved, absent):
    parts, _ = parts_of(changed(LORA, resolved))
    known, _ = parts_of(LORA)
    assert known.keys() - parts.keys() == absent
    assert parts[REST] == known[REST] + sum(known[name] for name in absent)


def test_a_count_above_the_peak_is_cut_and_said():
    huge = ParameterCounts(
        total=10 * WEIGHTS, trainable=WEIGHTS, matmul=WEIGHTS, matmul_trainable=0, adapter=WEIGHTS
    )
    parts, found = parts_of(changed(LORA, parameters=huge))
    assert REST not in parts
    assert found.notes[0].startswith("weights: 46.04 GiB by count, 8.20 GiB left of the peak")


def test_grpo_with_a_penalty_keeps_a_second_model_and_an_adapter_none():
    resolved = {"trainer": "GRPOTrainer", "arguments": {"beta": 0.04, "optim": "sgd"}}
    assert parts_of(changed(FULL, resolved))[0]["reference model"] == 4 * WEIGHTS
    assert "reference model" not in parts_of(changed(LORA, resolved))[0]


@pytest.mark.parametrize(
    ("sleeps", "mode", "is_shown"),
    [(False, "colocate", True), (True, "colocate", False), (False, "server", False)],
)
def test_a_pool_is_a_part_where_the_worker_holds_it_at_the_peak(sleeps, mode, is_shown):
    """Full fine-tuning peaks in a step, where an engine that sleeps has given its pool back."""
    study = build_gpu_study(Hardware(pool_bytes=2 * GIB), FEW, ("grpo",))
    made = Generation(engine="vllm", mode=mode, pool_bytes=2 * GIB, sleeps=sleeps)
    parts, _ = parts_of(changed(run_of(study, "grpo-micro.full.s0"), generation=made))
    assert parts.get("vLLM pool") == (2 * GIB if is_shown else None)
    assert parts.get("context and libraries") == (None if sleeps else CONTEXT)


def test_an_engine_in_a_process_of_its_own_stands_beside_torch():
    """NVML reads 2 GiB more than context and torch: the pool, which torch here never saw."""
    run = run_of(STUDY, "grpo-micro.full.s0")
    memory = run.memory.assign(nvml_device_bytes=run.memory["nvml_device_bytes"] + 2 * GIB)
    made = Generation(engine="vllm", mode="colocate", pool_bytes=2 * GIB, sleeps=False)
    other = changed(run, generation=made)
    summary = summarise(run.spec, other.record, run.steps, run.phases, memory, 2)
    parts, _ = parts_of(replace(other, memory=memory, summary=summary))
    assert (parts["vLLM pool"], parts["context and libraries"]) == (2 * GIB, CONTEXT)


def test_what_others_hold_is_no_context():
    study = build_gpu_study(Hardware(contaminated=("sft-micro.full.s0",)), FEW, SFT)
    run = run_of(study, "sft-micro.full.s0")
    parts, _ = parts_of(run)
    assert parts["other processes"] == 3 * GIB
    assert parts["context and libraries"] == CONTEXT


def read_again(run, memory, phases=None):
    """A run whose raw samples were others; the sampler notes the first."""
    phases = run.phases if phases is None else phases
    first = int(memory["nvml_device_bytes"].dropna().iloc[0])
    sampler = run.record.sampler
    devices = tuple(d.model_copy(update={"idle_bytes": first}) for d in sampler.devices)
    sampler = sampler.model_copy(update={"devices": devices})
    record = run.record.model_copy(update={"sampler": sampler})
    summary = summarise(run.spec, record, run.steps, phases, memory, 2)
    return replace(run, record=record, memory=memory, phases=phases, summary=summary)


def test_what_was_in_use_before_hides_nothing_that_others_add():
    machine = Hardware(contaminated=("sft-micro.full.s0",), idle_bytes=4 * GIB)
    parts, _ = parts_of(run_of(build_gpu_study(machine, FEW, SFT), "sft-micro.full.s0"))
    assert parts["held before the run"] == 4 * GIB
    assert parts["other processes"] == 3 * GIB
    assert parts["context and libraries"] == CONTEXT


def before_loading(run, at_most=None):
    """The samples of a GPU before its model is loaded, or the first of them."""
    load = next(row for row in run.phases if row.phase == "load")
    rows = (run.memory["device"] != "host") & (run.memory["t_ns"] < load.begin_ns)
    return rows & (rows.cumsum() <= (at_most or len(rows)))


@pytest.mark.parametrize("column", ["nvml_device_bytes", "foreign_bytes"])
def test_what_is_gone_when_the_model_is_loaded_is_no_part_of_a_peak(column):
    """5 GiB in the first samples: of nobody that is listed, or of a stranger that leaves."""
    first = before_loading(FULL, 5)
    memory = FULL.memory.copy()
    for name in {"nvml_device_bytes", column}:
        memory.loc[first, name] = 5 * GIB
    run = read_again(FULL, memory)
    assert parts_of(run)[0] == parts_of(FULL)[0]
    assert run.summary.growth("nvml-device") == FULL.summary.growth("nvml-device")


def test_what_torch_reserved_leaves_no_room_for_was_given_back():
    """5 GiB in every sample before loading: 0.75 GiB stand beside torch at the peak, and no more."""
    memory = FULL.memory.copy()
    memory.loc[before_loading(FULL), "nvml_device_bytes"] += 5 * GIB
    parts, found = parts_of(read_again(FULL, memory))
    assert (parts["held before the run"], found.notes) == (CONTEXT, ())
    assert parts["gradients"] == 4 * WEIGHTS


def test_between_two_steps_there_are_no_gradients():
    """Sampling takes more than any step: the whole peak lies in generate."""
    run = run_of(STUDY, "grpo-micro.full.s0")
    assert parts_of(run)[0]["gradients"] == 4 * WEIGHTS
    more = 25 * GIB
    inside = [label == "generate" for label in assign_phases(run.memory["t_ns"], run.phases)]
    memory = run.memory.copy()
    memory.loc[inside, "nvml_device_bytes"] += more
    phases = tuple(
        row.model_copy(
            update={
                "torch_reserved_peak_bytes": row.torch_reserved_peak_bytes + more,
                "torch_allocated_peak_bytes": row.torch_allocated_peak_bytes + more,
            }
        )
        if row.phase == "generate"
        else row
        for row in run.phases
    )
    parts, _ = parts_of(read_again(run, memory, phases))
    assert "gradients" not in parts
    assert parts["optimizer state"] == 8 * WEIGHTS
    assert parts[REST] > more - 8 * WEIGHTS


def test_of_several_gpus_the_first_is_shown_and_shards_are_counted_once():
    study = build_gpu_study(Hardware(gpus=2), FEW, SFT)
    run = run_of(study, "sft-micro.full.s0")
    copied, found = parts_of(run)
    assert (found.device, copied["weights"]) == ("GPU-aaaaaaaa", 4 * WEIGHTS)
    sharded = Distributed(processes=2, asked="fsdp2", type="FSDP", wrapper="FSDPModule")
    assert parts_of(changed(run, distributed=sharded))[0]["weights"] == 2 * WEIGHTS


def test_on_a_cpu_it_is_the_growth_of_rss():
    run = run_of(build_study(FEW), "sft-micro.full.s0")
    parts, found = parts_of(run)
    assert (found.lens, found.total_bytes) == ("rss", run.summary.growth("rss"))
    assert parts["weights"] == 4_000_000
    assert parts.keys() == {"weights", "gradients", REST}  # its optimizer is not named
    twice = Distributed(processes=2, asked="ddp", type="MULTI_CPU", wrapper="x")
    assert parts_of(changed(run, distributed=twice))[0]["weights"] == 8_000_000


def test_a_run_that_nothing_was_read_of_has_no_parts():
    study = build_study(Plan(arms=2, seeds=(0,), failures={"sft-micro.full.s0": "missing"}))
    assert waterfall_of(run_of(study, "sft-micro.full.s0")) is None
    assert waterfall_of(replace(FULL, summary=None)) is None


@settings(max_examples=40)
@given(
    total=st.integers(0, 10**11),
    trainable=st.integers(0, 10**11),
    pool=st.integers(0, 10**11),
    optim=st.sampled_from(["adamw_torch", "sgd", "galore"]),
)
def test_parts_add_up_whatever_was_counted(total, trainable, pool, optim):
    counts = ParameterCounts(
        total=total + trainable, trainable=trainable, matmul=0, matmul_trainable=0, adapter=0
    )
    made = Generation(engine="vllm", mode="colocate", pool_bytes=pool, sleeps=False)
    run = changed(FULL, {"arguments": {"optim": optim}}, parameters=counts, generation=made)
    parts, _ = parts_of(run)
    assert all(size > 0 for size in parts.values())


def forecast_of(device="A GPU of the tests", source="traced", **terms):
    made = Forecast(
        source=source,
        terms=tuple(Term(name=n, bytes=b, note="") for n, b in terms.items()),
        lenses=(),
    )
    arm = ArmMemory(pair="sft-micro", arm="full", device=device, forecast=made, why=None)
    return Forecasts(made_utc="", harness_version="", libraries={}, arms=(arm,))


def test_what_no_lens_tells_apart_is_split_as_the_arms_trace_has_it():
    before, _ = parts_of(FULL)
    made = forecast_of(
        weights=9 * GIB, activations=6, logits=3, temporaries=2, workspaces=1, allocator=5 * GIB
    )
    found = waterfall_of(FULL, made)
    assert sum(part.bytes for part in found.parts) == found.total_bytes
    parts = {part.name: part.bytes for part in found.parts}
    rest = before.pop(REST)
    assert {name: parts[name] for name in before} == before
    assert parts[ACTIVATIONS] == pytest.approx(rest / 2, abs=1)
    assert parts[LOGITS] == pytest.approx(rest / 4, abs=1)
    assert parts[OTHERS] == pytest.approx(rest / 4, abs=2)
    assert REST not in parts


@pytest.mark.parametrize(
    "made",
    [
        None,
        forecast_of(source="formulas", activations=6),
        forecast_of(device="cpu", activations=6),
        forecast_of(device="another GPU", activations=6),
        forecast_of(weights=9),
    ],
)
def test_a_forecast_that_says_nothing_of_it_splits_nothing(made):
    assert waterfall_of(FULL, made) == waterfall_of(FULL)
