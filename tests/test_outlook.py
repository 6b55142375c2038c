"""Verdicts in words, what would not train here, and what an amount of money pays for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.matrix import expand, load_matrix, parse_matrix
from harness.outlook import Ground, outlook, spend
from harness.settings import Parallel
from tests.plan_matrix import CARD, H100, MATRIX

SPECS = expand(parse_matrix(MATRIX, "eight"))
GROUND = Ground(CARD, CARD.gpus["H100 80GB"], "H100 80GB", H100, 80, here=None, has_tiles=True)


def arm_of(name, specs=SPECS, ground=GROUND, device="gpu", missing=None):
    arms = outlook([s for s in specs if s.arm == name], ground, device, missing or {})
    return arms[0]


def changed(arm, **update):
    return [s.model_copy(update=update) for s in SPECS if s.arm == arm and s.pair == "grpo-8b"]


def test_full_fine_tuning_of_8b_says_it_does_not_fit_and_what_does():
    alone = arm_of("full-alone")
    assert alone.fits is False
    assert "does not fit one 80 GB GPU" in alone.verdict
    assert "3 × 80 GB with FSDP2 do" in alone.verdict
    asked = arm_of("full", [s for s in SPECS if s.pair == "grpo-8b"])
    assert asked.fits is True
    assert asked.verdict.startswith("does not fit one 80 GB GPU; the 4 × 80 GB with FSDP2 that it")
    assert asked.verdict.endswith("3 would do")


def test_lora_of_8b_fits_one():
    arm = arm_of("lora-r1")
    assert arm.fits is True
    assert arm.verdict.startswith("fits one 80 GB GPU (")
    assert arm.skips == ()


def test_copies_of_a_model_do_not_help_it_to_fit():
    arm = arm_of(
        "full-alone", changed("full-alone", parallel=Parallel(processes=8, strategy="ddp"))
    )
    assert arm.fits is False
    assert "does not fit the 8 × 80 GB with DDP" in arm.verdict


def test_one_argument_that_would_make_it_fit_is_named():
    spec = SPECS[2]
    alone = {**spec.trainer, "use_vllm": False}  # vLLM would hold the held-out completions too

    def judged(batch):
        evaluation = spec.evaluation.model_copy(update={"batch_size": batch})
        return arm_of("lora-r1", changed("lora-r1", evaluation=evaluation, trainer=alone))

    arm = judged(256)
    assert arm.fits is False
    named = arm.verdict.partition("or with evaluation.batch_size ")[2].split()[0]
    assert judged(int(named)).fits is True
    assert judged(2 * int(named)).fits is False


def test_completions_that_vllm_samples_need_no_room_of_their_own():
    evaluation = SPECS[2].evaluation.model_copy(update={"batch_size": 4096})
    assert arm_of("lora-r1", changed("lora-r1", evaluation=evaluation)).fits is True


def test_a_machine_s_gpus_decide_what_would_not_train_here():
    assert arm_of("full", ground=replace(GROUND, here=0)).skips == ("no GPU here",)
    assert arm_of("full", ground=replace(GROUND, here=2)).skips == (
        "asks for 4 GPUs, this machine has 2",
    )
    assert arm_of("full", ground=replace(GROUND, here=4)).skips == ()
    small = replace(GROUND, memory_bytes=48_305_799_168, gigabytes=48, here=1)
    skips = arm_of("lora-r1", ground=small).skips
    assert "too large for 1 × 48 GB, by formulas" in skips
    assert any("vllm_gpu_memory_utilization" in reason for reason in skips)


def test_missing_access_is_a_reason_said_once():
    missing = {s.cell: "needs access: a test" for s in SPECS if s.arm == "lora-r1"}
    assert arm_of("lora-r1", missing=missing).skips == ("needs access: a test",)


def test_an_unknown_shape_is_unknown_not_nothing():
    specs = expand(load_matrix("cpu").matrix)
    arm = outlook(specs, replace(GROUND, here=0), "cpu", {})[0]
    assert arm.memory is arm.fits is arm.work is arm.cost is None
    assert arm.verdict == "ships with the harness; shape not in the catalog: memory unknown"
    assert arm.gpus == 0
    assert arm.skips == ()


def test_money_pays_in_plan_order_until_it_is_gone():
    arms = outlook(SPECS, GROUND, "gpu", {})
    price = {(a.pair, a.arm): a.cost.usd for a in arms}
    order = [
        s for s in SPECS if (s.pair, s.arm) not in (("grpo-8b", "full-alone"), ("sft-8b", "full"))
    ]
    limit = sum(price[s.pair, s.arm] for s in order[:3]) + 0.001
    purse = spend(SPECS, arms, limit)
    assert purse.paid == tuple(s.cell for s in order[:3])
    assert purse.unpaid == tuple(s.cell for s in order[3:])
    assert purse.spent_usd == pytest.approx(limit, abs=0.002)
    assert len(purse.skipped) == 4
    assert spend(SPECS, arms, 1e9).unpaid == ()
    assert spend(SPECS, arms, 0).paid == ()


def test_unknown_prices_are_neither_paid_nor_unpaid():
    specs = expand(load_matrix("cpu").matrix)
    purse = spend(specs, outlook(specs, GROUND, "cpu", {}), 50)
    assert purse.unknown == tuple(s.cell for s in specs)
    assert purse.spent_usd == 0
