"""What a run's rows make of attention: a mask where they are padded, or lie end to end."""

from __future__ import annotations

import pytest

from harness.forecast import subject_of
from harness.forecast_file import AskedRun
from harness.row_lengths import Rows
from tests.plan_matrix import facts_of, load_of, run_of


@pytest.mark.parametrize(
    ("cell", "trainer", "padded", "flattened"),
    [
        ("sft-8b.full", {}, True, False),
        ("sft-8b.full", {"per_device_train_batch_size": 1}, False, False),
        ("sft-8b.full", {"packing": True}, False, True),
        ("sft-8b.full", {"packing": True, "packing_strategy": "wrapped"}, False, False),
        ("sft-8b.full", {"padding_free": True}, False, True),
        ("grpo-8b.lora-r1", {"per_device_train_batch_size": 1}, True, False),
    ],
)
def test_rows_are_padded_where_a_batch_may_hold_several_lengths(cell, trainer, padded, flattened):
    spec = run_of(cell, **trainer)
    subject = subject_of(spec, facts_of(spec), load_of(spec))
    assert (subject.has_padding, subject.is_flattened) == (padded, flattened)


@pytest.mark.parametrize(
    ("batch", "mean", "padded"), [(2, 50, True), (1, 50, False), (2, None, False)]
)
def test_a_file_s_rows_are_padded_where_their_mean_is_given(batch, mean, padded):
    run = AskedRun(model="smollm2", batch=batch, length=Rows(longest=100, mean=mean))
    assert run.subject("runs.yaml: a").has_padding is padded
