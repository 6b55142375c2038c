"""Which engine judges; what the engines sample is in test_worker_vllm.py and test_worker_session.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.settings import Evaluation
from harness.worker.held_out import HeldOutReward, SilentProgress, engine_beside


def trainer_of(use_vllm: bool = True, **engine: Any) -> Any:
    held = {"vllm_generation": SimpleNamespace(**engine)} if engine else {}
    args = SimpleNamespace(use_vllm=use_vllm)
    return SimpleNamespace(args=args, processing_class=None, **held)


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        (trainer_of(mode="colocate", tensor_parallel_size=1), "were sampled by vLLM."),
        (
            trainer_of(mode="colocate", tensor_parallel_size=2),
            "were sampled by transformers, those",
        ),
        (trainer_of(mode="server", tensor_parallel_size=1), "were sampled by transformers, those"),
        (trainer_of(), "were sampled by transformers, those"),  # an older TRL
        (trainer_of(use_vllm=False), None),
    ],
)
def test_vllm_judges_where_every_process_has_one_and_the_record_says_so(trainer, expected):
    held_out = HeldOutReward(trainer, lambda completions, **_: [], Evaluation(), seed=0)
    notes = held_out.notes()
    assert len(notes) == (expected is not None)
    assert all(expected in note for note in notes)
    assert (engine_beside(trainer) is not None) is (expected == "were sampled by vLLM.")


def test_progress_is_silent_has_a_clock_and_beats_for_every_completion(capfd):
    beats: list[int] = []
    with SilentProgress(lambda: beats.append(1), total=3, desc="Processed prompts") as progress:
        for _ in range(3):
            progress.update(1)
            assert progress.format_dict["elapsed"] > 0
    assert len(beats) == 3
    assert capfd.readouterr() == ("", "")
