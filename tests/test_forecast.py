"""The forecast's own sums: terms that add up, intervals, draws of lengths, and what a file may ask."""

from __future__ import annotations

import pytest

from harness.catalog import MODELS
from harness.errors import ConfigError
from harness.forecast import fit, forecast_on_cpu, forecast_training, smallest
from harness.forecast_file import load_forecast_file
from harness.heap import Heap
from harness.memory_trace import ALLOCATE, FREE, MARK, Event, Trace, fold
from harness.row_lengths import Rows

MIB, GIB = 1 << 20, 1 << 30


def small_trace() -> Trace:
    def step(first, size):
        return [
            Event(MARK, name="step"),
            Event(MARK, name="forward"),
            *(Event(ALLOCATE, first + i, size, unit=i) for i in range(3)),
            Event(MARK, name="backward"),
            *(Event(FREE, first + i, unit=i) for i in (2, 1, 0)),
        ]

    weights = [Event(ALLOCATE, i, 64 * MIB, unit=i) for i in range(3)]
    steps = [*step(10, 40 * MIB), *step(20, 40 * MIB), *step(30, 20 * MIB)]
    return fold([*weights, *steps], dict.fromkeys(range(3), "weights"), 8, (100, 50))


@pytest.mark.parametrize("rows", [Rows(longest=100), Rows(longest=100, mean=40)])
def test_terms_add_up_to_what_is_reserved_and_the_interval_holds_it(rows):
    made = forecast_training(small_trace(), rows, batch=4, is_hopper=False, beyond_torch=GIB)
    reserved, device = made.lens("torch-reserved"), made.lens("nvml-device")
    assert sum(term.bytes for term in made.terms) == reserved.bytes
    assert reserved.low_bytes < reserved.bytes < reserved.high_bytes
    assert device.bytes == reserved.bytes + GIB


def test_hoppers_workspaces_are_part_of_what_torch_allocates():
    one, other = (
        forecast_training(
            small_trace(), Rows(longest=100), batch=4, is_hopper=hopper, beyond_torch=0
        ).lens("torch-allocated")
        for hopper in (False, True)
    )
    assert other.bytes - one.bytes == 2 * (32 * MIB - 8_519_680)


def test_off_hopper_what_is_beyond_torch_has_an_interval():
    widths = []
    for is_hopper in (True, False):
        made = forecast_training(
            small_trace(), Rows(longest=100), batch=4, is_hopper=is_hopper, beyond_torch=GIB
        )
        reserved, device = made.lens("torch-reserved"), made.lens("nvml-device")
        widths.append(
            device.high_bytes - device.low_bytes - reserved.high_bytes + reserved.low_bytes
        )
    assert widths == [0, 2 * 300 * MIB]


def test_a_run_fits_a_card_only_if_the_intervals_upper_end_does():
    made = forecast_training(
        small_trace(), Rows(longest=100), batch=4, is_hopper=False, beyond_torch=0
    )
    needs = made.needs
    fits = fit(made, {"a": needs.low_bytes - 1, "b": needs.bytes, "c": needs.high_bytes})
    assert fits == {"a": "no", "b": "perhaps", "c": "yes"}
    assert smallest(fits) == "c"
    assert smallest(fits, ("yes", "perhaps")) == "b"


def test_a_run_whose_cache_would_outgrow_a_card_fits_it_if_its_tensors_do_and_a_note_says_so():
    made = forecast_training(
        small_trace(), Rows(longest=100, mean=30), batch=1, is_hopper=False, beyond_torch=0
    )
    device, needs = made.lens("nvml-device"), made.needs
    assert needs.high_bytes < device.bytes
    between = (needs.high_bytes + device.bytes) // 2
    assert fit(made, {"between": between}) == {"between": "yes"}
    assert "reserved memory grows" in made.remarks[0]
    assert made.notes == ()  # it follows from the figures, and is not kept beside them
    even = forecast_training(
        small_trace(), Rows(longest=100), batch=1, is_hopper=False, beyond_torch=0
    )
    assert even.remarks == ()


def test_more_batches_reserve_more():
    def high(batches: int) -> int:
        made = forecast_training(
            small_trace(),
            Rows(longest=100, mean=30),
            batch=1,
            is_hopper=False,
            beyond_torch=0,
            batches=batches,
        )
        return made.lens("torch-reserved").high_bytes

    assert high(2) < high(200)


def test_on_the_cpu_the_lens_is_rss():
    assert [e.lens for e in forecast_on_cpu(small_trace(), 100).lenses] == ["rss"]


def test_a_large_block_goes_back_to_the_system_and_a_hole_in_the_heap_stays():
    heap = Heap()
    large = heap.allocate(64 * MIB)
    heap.free(large)
    assert heap.reserved == 0
    inside, end = heap.allocate(64 << 10), heap.allocate(64 << 10)
    heap.free(inside)
    assert heap.reserved >= 128 << 10
    heap.free(end)
    assert heap.allocated == 0


def test_freeing_a_mapped_block_raises_the_threshold_to_its_size():
    heap = Heap()
    heap.free(heap.allocate(2 * MIB))
    kept = heap.allocate(MIB)
    heap.allocate(MIB)
    heap.free(kept)
    assert heap.reserved > MIB + (512 << 10)


def write(tmp_path, text):
    path = tmp_path / "runs.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_what_its_runs_are(tmp_path):
    path = write(
        tmp_path,
        "format: 1\nruns:\n  a: {model: smollm2, batch: 2, length: {longest: 64}, "
        "lora: {r: 8, target_modules: [q_proj]}}\n",
    )
    run = load_forecast_file(path).runs["a"]
    subject = run.subject("runs.yaml: a")
    assert subject.facts == MODELS["smollm2"]
    assert subject.adapter.r == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("format: 1\nruns:\n  a: {model: smollm2, bach: 2, length: {longest: 64}}\n", "bach"),
        ("format: 1\nruns: {}\n", "runs"),
        ("[]\n", "expected a mapping"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        load_forecast_file(write(tmp_path, text))


def test_an_unknown_model_is_named_with_its_run(tmp_path):
    path = write(
        tmp_path, "format: 1\nruns:\n  a: {model: smollm, batch: 2, length: {longest: 64}}\n"
    )
    with pytest.raises(ConfigError, match=r"runs.yaml: a: model: 'smollm'"):
        load_forecast_file(path).runs["a"].subject("runs.yaml: a")
