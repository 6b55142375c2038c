from __future__ import annotations

from harness.parity import undeclared_differences

OURS = {
    "trainer": "SFTTrainer",
    "arguments": {"learning_rate": 1e-4, "bf16": False, "max_length": 64},
    "lora": None,
    "dtypes": ["torch.float32"],
}


def test_equal_arms_have_no_difference():
    assert undeclared_differences(OURS, OURS, ()) == []


def test_what_the_arm_is_about_and_what_was_declared_may_differ():
    theirs = {**OURS, "lora": {"default": {"r": 1}}}
    theirs["arguments"] = {**OURS["arguments"], "learning_rate": 1e-3}
    assert undeclared_differences(OURS, theirs, ["learning_rate"]) == []


def test_a_default_that_moves_with_the_arm_is_found():
    theirs = {**OURS, "dtypes": ["torch.bfloat16"]}
    theirs["arguments"] = {**OURS["arguments"], "bf16": True, "extra": 1}
    found = undeclared_differences(OURS, theirs, ["learning_rate"])
    assert [f.split(":")[0] for f in found] == ["bf16", "dtypes", "extra"]
