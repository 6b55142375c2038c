"""Memory and time: leaks and slow code are found among noise, and noise alone never alarms."""

from __future__ import annotations

import random

import pytest

from harness.compare.burden import Spread, shared_drift
from harness.compare.grouping import CellRuns, group
from harness.compare.limits import Limits
from harness.compare.memory import compare_memory, memory_spread, slope_of
from harness.compare.speed import compare_speed, step_ratio
from harness.grade import MeasurementGrade
from tests.comparison_sides import MIB, change_steps, make_run, make_side, only

LIMITS = Limits()
PAIRS = ("sft-plain", "sft-packed", "sft-long", "grpo-plain", "grpo-kl")
SIDES_SIMULATED = 500
STRANGER = MeasurementGrade(
    grade="D", reasons=("Contaminated. Other processes held up to 15.0 GiB.", "Another.")
)


def noisy(seed, change=lambda run: run):
    return make_side(change, pairs=PAIRS, noise=random.Random(seed), steps=30)


def changed(base, candidate, spread=None):
    """Name the cells with a change, by what."""
    cells = group(base, candidate)
    found = {}
    for compare in (compare_memory, compare_speed):
        for name, differences in compare(cells, LIMITS, spread or Spread()).items():
            for each in differences:
                if each.word != "same":
                    found.setdefault(each.what, {})[name] = each.word
    return found


def leaking(size):
    def change(run):
        return change_steps(run, lambda s: {"rss_bytes": s.rss_bytes + size * s.step})

    return change


def slower(factor):
    return lambda run: change_steps(run, lambda s: {"cpu_s": factor * s.cpu_s})


def builds_slower(seconds):
    def change(run):
        probe = run.probe
        more = probe.construct_cpu_s + seconds
        return run.model_copy(update={"probe": probe.model_copy(update={"construct_cpu_s": more})})

    return change


def is_grpo(run):
    return run.task == "grpo"


def is_lora(run):
    return run.method == "lora"


def alarms_of_noise(first, last):
    """Compare pairs of sides that differ in nothing but what a shared machine does."""
    return [s for s in range(first, last) if changed(noisy(2 * s), noisy(2 * s + 1))]


@pytest.mark.slow
def test_noise_alone_does_not_alarm():
    assert alarms_of_noise(0, 25) == []


@pytest.mark.slow
def test_noise_alone_never_alarms():
    """500 pairs of sides of 10 cells."""
    assert alarms_of_noise(0, SIDES_SIMULATED) == []


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("where", [is_grpo, is_lora])
def test_a_leak_is_found_among_noise_where_it_is(seed, where):
    found = changed(noisy(seed), noisy(1000 + seed, only(where, leaking(MIB))))
    expected = {f"{r.pair}.{r.arm}" for r in noisy(0).runs if where(r)}
    assert found["rss/slope"].keys() == expected
    assert set(found["rss/slope"].values()) == {"changed"}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("where", [is_grpo, is_lora])
def test_slow_steps_are_found_among_noise_where_they_are(seed, where):
    found = changed(noisy(seed), noisy(1000 + seed, only(where, slower(1.8))))
    expected = {f"{r.pair}.{r.arm}" for r in noisy(0).runs if where(r)}
    assert found["cpu/step"].keys() == expected
    assert set(found["cpu/step"].values()) == {"changed"}


@pytest.mark.parametrize("seed", range(10))
def test_a_slow_constructor_is_found_among_noise(seed):
    found = changed(noisy(seed), noisy(1000 + seed, only(is_grpo, builds_slower(1.5))))
    assert len(found["cpu/construct"]) == 4


def test_one_run_that_is_slower_is_a_busy_machine_and_by_far_it_is_a_change():
    def where(run):
        return run.pair == "sft-plain" and is_lora(run)

    base = make_side(pairs=PAIRS)
    assert changed(base, make_side(only(where, slower(1.5)), pairs=PAIRS)) == {}
    found = changed(base, make_side(only(where, slower(3.0)), pairs=PAIRS))
    assert found == {"cpu/step": {"sft-plain.lora-r4": "changed"}}


def test_everything_slower_alike_is_undecided_and_by_far_it_is_a_change():
    base = make_side(pairs=PAIRS)
    found = changed(base, make_side(slower(1.4), pairs=PAIRS))
    assert set(found["cpu/step"].values()) == {"undecided"}
    found = changed(base, make_side(slower(2.5), pairs=PAIRS))
    assert set(found["cpu/step"].values()) == {"changed"}


def test_a_slow_task_stands_out_from_a_busy_machine():
    def change(run):
        return slower(2.6 if is_grpo(run) else 1.3)(run)

    found = changed(make_side(pairs=PAIRS), make_side(change, pairs=PAIRS))["cpu/step"]
    assert {name for name, word in found.items() if word == "changed"} == {
        f"{pair}.{arm}" for pair in ("grpo-plain", "grpo-kl") for arm in ("full", "lora-r4")
    }
    assert {word for name, word in found.items() if name.startswith("sft")} == {"undecided"}


def test_less_time_and_memory_are_no_difference():
    found = changed(make_side(slower(3.0), pairs=PAIRS), make_side(pairs=PAIRS))
    assert found == {}
    leaks = make_side(leaking(MIB), pairs=PAIRS, steps=30)
    assert changed(leaks, make_side(pairs=PAIRS, steps=30)) == {}


def test_reruns_that_are_apart_widen_the_limits():
    base = make_side(pairs=PAIRS, steps=30)
    candidate = make_side(only(is_grpo, slower(1.5)), pairs=PAIRS, steps=30)
    assert "cpu/step" in changed(base, candidate)
    assert changed(base, candidate, Spread(step_ratio=1.3)) == {}
    leak = make_side(only(is_grpo, leaking(MIB)), pairs=PAIRS, steps=30)
    assert "rss/slope" in changed(base, leak)
    assert changed(base, leak, Spread(slope_bytes=0.6 * MIB)) == {}


def test_a_higher_peak_is_a_change():
    def heavier(run):
        return run.model_copy(update={"growth_bytes": {"rss": 2 * run.growth_bytes["rss"]}})

    found = changed(make_side(pairs=PAIRS), make_side(only(is_grpo, heavier), pairs=PAIRS))
    assert len(found["growth/rss"]) == 4


def test_a_counter_of_torch_needs_no_company():
    def with_counter(size):
        return only(
            lambda r: r.pair == "sft-plain" and is_lora(r),
            lambda r: r.model_copy(update={"growth_bytes": {"torch-allocated": size}}),
        )

    base = make_side(with_counter(1000 * MIB), pairs=PAIRS)
    candidate = make_side(with_counter(1150 * MIB), pairs=PAIRS)
    assert changed(base, candidate) == {"growth/torch-allocated": {"sft-plain.lora-r4": "changed"}}


def on_cuda(run):
    return run.model_copy(update={"config": {**run.config, "device": "cuda"}})


def on_the_device(sizes, poor=()):
    """NVML device memory of each seed, GiB; of some seeds graded D."""

    def change(run):
        size = sizes[run.seed] * 1024 * MIB
        grades = {"nvml-device": STRANGER} if run.seed in poor else {}
        peaks = {"nvml-device": {"training": size}}
        return on_cuda(run).model_copy(
            update={
                "growth_bytes": {"nvml-device": size},
                "peak_bytes": peaks,
                "grades": grades,
            }
        )

    return change


def of_seeds(sizes, poor=()):
    seeds = range(len(sizes))
    return make_side(
        on_the_device(sizes, poor), pairs=PAIRS[:1], arms={"full": "full"}, seeds=tuple(seeds)
    )


def memory_of(base, candidate):
    (found,) = compare_memory(group(base, candidate), LIMITS, Spread()).values()
    return [(d.what, d.word, d.sentence) for d in found]


def test_a_peak_that_another_process_made_is_not_compared_and_that_is_said():
    for base, candidate, who in (
        (of_seeds([9]), of_seeds([24], poor=[0]), "candidate"),
        (of_seeds([9], poor=[0]), of_seeds([24]), "base"),
    ):
        assert memory_of(base, candidate) == [
            (
                "memory/nvml-device",
                "undecided",
                "NVML device memory not compared, not enough evidence: graded D in the "
                f"{who}, seed 0: {STRANGER.reasons[0][:-1]}; measure again without that",
            )
        ]


def test_the_seeds_that_can_be_trusted_are_compared():
    found = memory_of(of_seeds([9, 9]), of_seeds([24, 24], poor=[0]))
    assert [each[0] for each in found] == ["growth/nvml-device"]
    assert compare_memory(group(of_seeds([9, 9]), of_seeds([24, 9], [0])), LIMITS, Spread()) == {}


def test_too_few_trusted_seeds_for_statistics_are_not_enough():
    base = of_seeds([9, 9, 9])
    assert [e[:2] for e in memory_of(base, of_seeds([24, 9, 9], poor=[0]))] == [
        ("memory/nvml-device", "undecided")
    ]


def test_a_rerun_that_cannot_be_trusted_says_nothing_of_the_machine():
    def again(grade):
        base, other = (make_run("sft-plain", "full", "full", 0) for _ in "ab")
        other = other.model_copy(
            update={
                "growth_bytes": {"rss": 3 * base.growth_bytes["rss"]},
                "grades": {"rss": grade},
                "step_wall_s": (9.0,),
            }
        )
        cell = CellRuns("sft-plain", "full", "sft", "full", {0: base}, {0: other})
        return memory_spread([cell], 5)[1]

    good = MeasurementGrade(grade="C", reasons=("Only 5 samples in training.",))
    assert again(good) == pytest.approx(3)
    assert again(STRANGER) == 1.0


def test_a_processs_memory_on_a_gpu_is_compared_by_its_peak():
    """A baseline of before took off the first reading, 600 MiB of context; its peak is the same."""

    def of(growth):
        peaks = {"peak_bytes": {"nvml-process": {"training": 1100 * MIB}}}
        return lambda r: on_cuda(
            r.model_copy(update={"growth_bytes": {"nvml-process": growth}, **peaks})
        )

    base, candidate = (make_side(of(size * MIB), pairs=PAIRS) for size in (500, 1100))
    assert changed(base, candidate) == {}


def test_the_slope_is_that_of_a_line_and_a_jump_does_not_move_it():
    run = change_steps(
        make_run("sft-plain", "full", "full", 0),
        lambda s: {"rss_bytes": 1000 * s.step + (10**6 if s.step >= 11 else 0)},
    )
    assert slope_of(run, 3) == pytest.approx(1000)
    assert slope_of(run, 8) is None


def test_memory_that_grows_now_and_then_is_a_leak_too():
    """An allocator that asks for a chunk every third step."""
    chunks = only(
        is_grpo, lambda r: change_steps(r, lambda s: {"rss_bytes": s.rss_bytes + s.step // 3 * MIB})
    )
    found = changed(make_side(pairs=PAIRS, steps=40), make_side(chunks, pairs=PAIRS, steps=40))
    assert len(found["rss/slope"]) == 4


def test_memory_that_is_there_from_the_start_is_no_leak():
    higher = only(
        is_grpo, lambda r: change_steps(r, lambda s: {"rss_bytes": s.rss_bytes + 64 * MIB})
    )
    assert changed(make_side(pairs=PAIRS), make_side(higher, pairs=PAIRS)) == {}


def test_the_ratio_is_of_the_same_steps():
    base = make_run("sft-plain", "full", "full", 0)
    candidate = change_steps(base, lambda s: {"cpu_s": s.cpu_s * (3.0 if s.step <= 3 else 1.5)})
    assert step_ratio(base, candidate, 3) == pytest.approx(1.5)
    assert step_ratio(base, candidate, 11) is None


def test_the_drift_is_what_every_group_shares():
    cells = group(make_side(pairs=PAIRS), make_side(pairs=PAIRS))
    assert shared_drift([(cell, 1.5) for cell in cells]) == 1.5
    assert shared_drift([(cell, 1.5 if cell.task == "sft" else 1.1) for cell in cells]) == 1.1
    assert shared_drift([(cell, 0.5) for cell in cells]) == 1.0
    assert shared_drift([(cells[0], 9.0)]) == 1.0


def holding(name, each_step):
    """Let a run hold so many more of something after each step."""

    def change(run):
        return change_steps(run, lambda s: {"held": s.held | {name: 1000 + each_step * s.step}})

    return change


@pytest.mark.parametrize(
    ("name", "a_step"), [("tensors", 1), ("tensor_bytes", 2048), ("objects", 3), ("blocks", 20)]
)
def test_what_is_held_a_step_more_is_a_leak_in_one_run(name, a_step):
    def where(run):
        return run.pair == "sft-plain" and is_lora(run)

    base = make_side(only(where, holding(name, 2)), pairs=PAIRS)
    candidate = make_side(only(where, holding(name, 2 + a_step)), pairs=PAIRS)
    assert changed(base, candidate) == {f"held/{name}": {"sft-plain.lora-r4": "changed"}}
    assert changed(candidate, base) == {}


def test_what_wavers_is_no_leak():
    def wavers(by):
        return lambda r: change_steps(
            r,
            lambda s: {
                "held": {"tensors": 200 + 3 * (s.step % by), "tensor_bytes": 10**6 - s.step}
            },
        )

    base, candidate = make_side(wavers(1), steps=40), make_side(wavers(4), steps=40)
    assert changed(base, candidate) == {}


def test_a_value_that_is_logged_anew_is_kept_and_no_leak():
    def logs_more(run):
        more = {f"new/{i}": (0.5,) * 12 for i in range(5)}
        return holding("blocks", 60)(run).model_copy(update={"series": run.series | more})

    base = make_side(holding("blocks", 30), pairs=PAIRS)
    assert changed(base, make_side(logs_more, pairs=PAIRS)) == {}
    assert "held/blocks" in changed(base, make_side(holding("blocks", 60), pairs=PAIRS))


def test_a_leaked_tensor_is_told_once_as_a_tensor():
    base = make_side(lambda r: holding("blocks", 5)(holding("tensors", 0)(r)), pairs=PAIRS)
    leak = make_side(lambda r: holding("blocks", 99)(holding("tensors", 4)(r)), pairs=PAIRS)
    assert set(changed(base, leak)) == {"held/tensors"}


def test_a_pair_that_builds_far_longer_is_one_of_its_own_though_its_like_are_slower_too():
    """Rows prepared twice: the pair with many rows shows it in both arms, others by tenths of a second."""

    def change(run):
        if run.pair == "sft-long":
            return builds_slower(1.2)(run)
        return builds_slower(0.6)(run) if run.task == "sft" and not is_lora(run) else run

    found = changed(make_side(pairs=PAIRS), make_side(change, pairs=PAIRS))["cpu/construct"]
    assert set(found.values()) == {"changed"}
    assert {name for name in found if name.endswith("lora-r4")} == {"sft-long.lora-r4"}
    assert {name for name in found if name.endswith("full")} == {
        "sft-plain.full",
        "sft-packed.full",
        "sft-long.full",
    }


def test_arms_of_a_pair_that_are_a_little_slower_ran_while_the_machine_was_busy():
    def in_one_pair(factor):
        return only(lambda run: run.pair == "grpo-kl", slower(factor))

    base = make_side(pairs=PAIRS)
    assert changed(base, make_side(in_one_pair(1.6), pairs=PAIRS)) == {}
    found = changed(base, make_side(in_one_pair(2.0), pairs=PAIRS))
    assert found == {"cpu/step": {"grpo-kl.full": "changed", "grpo-kl.lora-r4": "changed"}}


def test_a_constructor_that_takes_tenths_of_a_second_more_in_one_pair_is_noise():
    def builds(seconds):
        return lambda run: builds_slower(seconds)(
            run.model_copy(update={"probe": run.probe.model_copy(update={"construct_cpu_s": 0.1})})
        )

    base = make_side(builds(0.0), pairs=PAIRS)
    noisy_pair = make_side(
        lambda run: builds(0.09 if run.pair == "grpo-kl" else 0.0)(run), pairs=PAIRS
    )
    assert changed(base, noisy_pair) == {}
    one_paused = make_side(
        lambda run: builds(0.25 if run.pair == "grpo-kl" and is_lora(run) else 0.0)(run),
        pairs=PAIRS,
    )
    assert changed(base, one_paused) == {}


def test_a_busy_machine_is_told_by_a_fixed_piece_of_work():
    def on(pace_of_grpo, factor=1.0):
        """GRPO's runs beside a neighbour; times follow it, and a fault's factor."""

        def change(run):
            pace = pace_of_grpo if is_grpo(run) else 1.0
            more = factor if is_grpo(run) else 1.0
            probe = run.probe.model_copy(update={"construct_cpu_s": 0.8 * pace})
            return change_steps(
                run.model_copy(update={"probe": probe}),
                lambda s: {"pace_s": 0.003 * pace, "cpu_s": s.cpu_s * pace * more},
            )

        return make_side(change, pairs=PAIRS)

    assert changed(make_side(pairs=PAIRS), on(1.8)) != {}, "nobody measured how busy it was"
    assert changed(on(1.0), on(1.8)) == {}
    assert changed(on(1.8), on(1.0)) == {}
    found = changed(on(1.0), on(1.8, 1.8))["cpu/step"]
    assert found.keys() == {f"{r.pair}.{r.arm}" for r in make_side(pairs=PAIRS).runs if is_grpo(r)}
