"""The exact integers of the models' published shapes, and of the adapters put on them."""

from __future__ import annotations

import pytest

from harness.catalog import ATTENTION_LAYERS as ATTENTION
from harness.catalog import MLP_LAYERS as MLP
from harness.catalog import MODELS
from harness.errors import ConfigError
from harness.sizes import count_groups, count_lora

# repository: attention, MLP and head per rank; all-linear at r=1 and r=256
COUNTS = {
    "meta-llama/Llama-3.2-1B": (212_992, 491_520, 130_304, 704_512, 180_355_072),
    "meta-llama/Llama-3.2-3B": (573_440, 946_176, 131_328, 1_519_616, 389_021_696),
    "meta-llama/Llama-3.1-8B": (851_968, 1_769_472, 132_352, 2_621_440, 671_088_640),
    "Qwen/Qwen3-8B-Base": (958_464, 1_769_472, 156_032, 2_727_936, 698_351_616),
    "Qwen/Qwen3-0.6B": (286_720, 344_064, 152_960, 630_784, 161_480_704),
    "Qwen/Qwen2.5-3B-Instruct": (460_800, 1_410_048, 153_984, 1_870_848, 478_937_088),
    "HuggingFaceTB/SmolLM3-3B": (479_232, 1_410_048, 130_304, 1_889_280, 483_655_680),
}


@pytest.mark.parametrize("repository", MODELS)
def test_groups_add_up_to_the_published_total(repository):
    assert count_groups(MODELS[repository]).total == MODELS[repository].parameters


@pytest.mark.parametrize(("repository", "counts"), COUNTS.items())
def test_adapters_have_exactly_the_published_counts(repository, counts):
    facts = MODELS[repository]
    attention, mlp, head, r1, r256 = counts
    assert count_lora(facts, 1, "attention") == attention
    assert count_lora(facts, 1, "mlp") == mlp
    assert count_lora(facts, 1, ("lm_head",)) == head
    assert count_lora(facts, 1, "all-linear") == r1
    assert count_lora(facts, 256, "all-linear") == r256
    assert count_lora(facts, 1, ("all-linear", "lm_head")) == r1 + head


def test_an_instruct_model_has_the_counts_of_its_base():
    for name in ("Llama-3.2-1B", "Llama-3.1-8B"):
        base, tuned = (MODELS[f"meta-llama/{name}{kind}"] for kind in ("", "-Instruct"))
        assert count_groups(base) == count_groups(tuned)


def test_a_tied_head_multiplies_but_is_counted_once():
    groups = count_groups(MODELS["Qwen/Qwen3-0.6B"])
    assert groups.head == 0
    assert groups.matmul == groups.total - groups.norms


def test_lists_and_patterns_mean_what_peft_takes_them_for():
    facts = MODELS["meta-llama/Llama-3.1-8B"]
    assert count_lora(facts, 4, ATTENTION) == count_lora(facts, 4, "attention")
    assert count_lora(facts, 4, (*ATTENTION, *MLP)) == count_lora(facts, 4, "all-linear")
    with_head = (*ATTENTION, *MLP, "lm_head")
    assert count_lora(facts, 4, with_head) == count_lora(facts, 4, "all-linear+lm_head")
    assert count_lora(facts, 1, ("q_proj", "self_attn.q_proj")) == 32 * (4096 + 4096)
    assert count_lora(facts, 1, r".*\.layers\.[01]\.self_attn\.q_proj") == 2 * (4096 + 4096)


@pytest.mark.parametrize("wrong", ["q_prj", ("q_proj", "gate_prj"), "(", ()])
def test_a_target_that_names_nothing_is_refused(wrong):
    with pytest.raises(ConfigError, match="names no linear layer"):
        count_lora(MODELS["Qwen/Qwen3-0.6B"], 1, wrong)
