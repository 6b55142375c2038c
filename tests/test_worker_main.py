from __future__ import annotations

import pytest

from harness.errors import ConfigError, MachineError
from harness.record import EvaluationPoint, Result, Status
from harness.worker.__main__ import classify, conclude
from harness.worker.progress import Progress


class GatedRepoError(OSError):
    """Named like huggingface_hub's."""


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


def raised_from(cause: BaseException | None, error: Exception) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


def raised_during(first: Exception, error: Exception) -> Exception:
    try:
        try:
            raise first
        except Exception:
            raise error  # noqa: B904 - without 'from' is the case under test
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (GatedRepoError("gated"), Status.UNAVAILABLE),
        (raised_from(GatedRepoError("403"), OSError("You are trying to access a gated repo")),
         Status.UNAVAILABLE),
        (raised_from(raised_from(GatedRepoError("403"), OSError("a")), OSError("b")),
         Status.UNAVAILABLE),
        (raised_during(GatedRepoError("403"), OSError("no file named config.json")),
         Status.UNAVAILABLE),
        (OSError("x/y is not a local folder and is not a valid model identifier listed on 'h'"),
         Status.UNAVAILABLE),
        (MachineError("no cache"), Status.UNAVAILABLE),
        (raised_from(KeyError("x"), OSError("disk")), Status.CRASHED),
        (OutOfMemoryError("no"), Status.OOM_GPU),
        (RuntimeError("CUDA out of memory. Tried to allocate"), Status.OOM_GPU),
        (RuntimeError("CUDA error: out of memory"), Status.OOM_GPU),
        (MemoryError(), Status.OOM_HOST),
        (RuntimeError("probability tensor contains either `inf`, `nan` or element < 0"), Status.NAN),
        (FloatingPointError("overflow"), Status.NAN),
        (raised_from(TypeError("x"), ConfigError("SFTConfig refuses")), Status.CONFIG),
        (ValueError("anything else"), Status.CRASHED),
    ],
)  # fmt: skip
def test_an_exception_has_a_status(error, status):
    assert classify(error)[0] is status


def test_exceptions_that_hold_each_other_end():
    first, second = ValueError("a"), ValueError("b")
    first.__context__, second.__context__ = second, first
    assert classify(first)[0] is Status.CRASHED


def test_torch_says_what_is_looked_for():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.multinomial(torch.tensor([float("nan"), 1.0]), 1)
    assert classify(caught.value)[0] is Status.NAN


def test_a_failed_run_keeps_what_it_reached():
    point = EvaluationPoint(step=0, split="test", metric="nll", value=1.0, rows=1, wall_s=0.1)

    def train(progress: Progress) -> Result:
        progress.steps_done = 7
        progress.evaluations.append(point)
        raise ValueError("why")

    result = conclude(train)
    assert (result.status, result.reason) == (Status.CRASHED, "ValueError: why")
    assert (result.steps_done, result.evaluations) == (7, (point,))


def test_a_run_that_ends_well_is_left_as_it_is():
    whole = Result(status=Status.OK, steps_done=3)
    assert conclude(lambda _: whole) is whole


def test_an_exception_after_a_loss_that_was_no_number_is_its_consequence():
    result = Progress(steps_done=3, nan_step=3).failed(Status.CRASHED, "RuntimeError: boom")
    assert result.status is Status.NAN
    assert "not a number at step 3" in (result.reason or "")
    assert "boom" in (result.reason or "")
