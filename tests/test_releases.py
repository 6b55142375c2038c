from __future__ import annotations

import pytest

from harness.releases import head_problem, installed_versions, is_before, unfit_pairing


def test_releases_are_ordered_by_their_numbers():
    assert is_before({"trl": "0.9.6"}, "trl", "0.24")
    assert not is_before({"trl": "1.10.0"}, "trl", "1.6")
    assert not is_before({"trl": "1.6"}, "trl", "1.6.0")
    assert is_before({"trl": "0.24.0.dev0"}, "trl", "0.25")


def test_an_unknown_version_counts_as_the_newest():
    assert not is_before({"trl": None}, "trl", "99")
    assert not is_before({}, "trl", "99")


@pytest.mark.parametrize(
    ("task", "trl", "transformers", "has_triton", "reason"),
    [
        ("sft", "1.15.0", "5.17.0", False, "can't train without Triton"),
        ("grpo", "1.15.0", "5.17.0", False, "can't train without Triton"),
        ("sft", "1.15.0", "5.17.0", True, None),
        ("sft", "1.16.0", "5.17.0", False, None),
        ("grpo", "0.28.0", "5.17.0", False, "can't be imported"),
        ("sft", "0.28.0", "5.17.0", False, None),
        ("sft", "0.26.2", "5.17.0", False, "trains on prompts too"),
        ("sft", "0.24.0", "4.57.6", False, None),
        ("grpo", "0.24.0", "4.57.6", False, None),
        ("grpo", "0.29.0", "5.17.0", False, None),
    ],
)
def test_pairings_that_cannot_train_are_named(task, trl, transformers, has_triton, reason):
    found = unfit_pairing(task, {"trl": trl, "transformers": transformers}, has_triton=has_triton)
    assert (found is None) if reason is None else (found is not None and reason in found)


def test_installed_versions_are_those_that_would_be_imported():
    import transformers
    import trl

    expected = {"trl": trl.__version__, "transformers": transformers.__version__}
    assert installed_versions() == expected


def test_an_adapter_on_the_head_is_refused_from_1_15_on():
    assert head_problem({"trl": "1.14.2", "transformers": "5.17.0"}) is None
    assert "lm_head" in head_problem({"trl": "1.15.0", "transformers": "5.17.0"})
    assert "TRL 1.14 or older" in head_problem({"trl": "1.16.0", "transformers": "5.17.0"})
