from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.frozen import canonical_json, content_hash
from harness.matrix import expand, parse_matrix
from harness.settings import DatasetSpec, Lora
from harness.spec import Arm
from tests.conftest import MATRIX


def specs():
    return expand(parse_matrix(MATRIX, "tiny.yaml"))


def test_a_run_id_is_the_same_for_the_same_training():
    assert [s.run_id for s in specs()] == [s.run_id for s in specs()]
    assert len({s.run_id for s in specs()}) == 8


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 99},
        {"trainer": {"learning_rate": 9.0}},
        {"lora": Lora(r=3)},
        {"reward": "accuracy"},
    ],
)
def test_any_change_of_what_is_trained_is_another_run(change):
    spec = specs()[-1]
    assert spec.model_copy(update=change).run_id != spec.run_id


def test_a_spec_survives_json():
    for spec in specs():
        assert type(spec).model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_numpy_refuses_is_no_seed(seed):
    spec = specs()[0]
    with pytest.raises(ValidationError, match="seed"):
        type(spec).model_validate({**spec.model_dump(), "seed": seed})


@pytest.mark.parametrize("rows", ["train_rows", "validation_rows", "test_rows"])
def test_more_rows_than_fit_in_memory_are_refused(rows):
    dataset = {"name": "micro-steps", "train_rows": 1, "test_rows": 1}
    assert DatasetSpec.model_validate({**dataset, rows: 10_000_000})
    with pytest.raises(ValidationError, match="less than or equal to 10000000"):
        DatasetSpec.model_validate({**dataset, rows: 10_000_001})


def test_lora_needs_an_adapter_and_full_takes_none():
    with pytest.raises(ValidationError, match="needs a `lora:` block"):
        Arm(method="lora")
    with pytest.raises(ValidationError, match="takes no `lora:` block"):
        Arm(method="full", lora=Lora(r=1))


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_the_hash_does_not_depend_on_the_order_of_keys(data):
    backwards = dict(reversed(list(data.items())))
    assert content_hash(data) == content_hash(backwards)
    assert canonical_json(data) == canonical_json(backwards)
