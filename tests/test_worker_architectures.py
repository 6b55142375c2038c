"""PEFT's own adapters on models without weights count what the closed forms say."""

from __future__ import annotations

import pytest
from peft import LoraConfig, get_peft_model

from harness.catalog import MODELS
from harness.sizes import ATTENTION, MLP, count_groups, count_lora
from harness.worker.architectures import full_config, meta_model
from harness.worker.models import count_parameters
from tests.test_sizes import COUNTS

LLAMA_8B = MODELS["meta-llama/Llama-3.1-8B"]


def counted(facts, r, target_modules):
    """What PEFT puts on the model; asserts that nothing was allocated for it."""
    config = LoraConfig(r=r, target_modules=target_modules, task_type="CAUSAL_LM")
    model = get_peft_model(meta_model(full_config(facts)), config, low_cpu_mem_usage=True)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    return count_parameters(model)


@pytest.mark.parametrize("repository", COUNTS)
@pytest.mark.parametrize("r", [1, 256])
def test_peft_counts_all_linear_as_the_closed_form_does(repository, r):
    facts = MODELS[repository]
    *_, r1, r256 = COUNTS[repository]
    parameters = counted(facts, r, "all-linear")
    assert parameters.adapter == parameters.trainable == {1: r1, 256: r256}[r]
    assert parameters.adapter == count_lora(facts, r, "all-linear")
    assert parameters.total - parameters.adapter == facts.parameters
    assert parameters.matmul == count_groups(facts).matmul


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (ATTENTION, "attention"),
        (MLP, "mlp"),
        ((*ATTENTION, *MLP, "lm_head"), ("all-linear", "lm_head")),
    ],
)
def test_peft_counts_groups_and_the_head_of_an_untied_model(modules, said):
    assert counted(LLAMA_8B, 3, list(modules)).adapter == count_lora(LLAMA_8B, 3, said)
