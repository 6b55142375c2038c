"""Terms that add up, and the verdicts that the page's 8B pairs must get."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.estimate import estimate_memory, pool_note, pool_problem, smallest_sharding
from harness.rates import Assumed
from harness.settings import Lora
from tests.plan_matrix import CARD, H100, facts_of, load_of, run_of

GIB = 2**30
BARE = CARD.model_copy(
    update={
        "context_bytes": Assumed(value=0, source="a test"),
        "fragmentation": Assumed(value=0.0, source="a test"),
    }
)


def estimated(cell, card=CARD, has_tiles=True, changes=None, **trainer):
    spec = run_of(cell, **trainer)
    load = load_of(spec, **(changes or {}))
    return estimate_memory(spec, facts_of(spec), load, H100, card, has_tiles=has_tiles)


CELLS = ("grpo-8b.full", "grpo-8b.full-alone", "grpo-8b.lora-r1", "sft-8b.full", "sft-8b.lora-r256")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("has_tiles", [True, False])
def test_terms_add_up_exactly(cell, has_tiles):
    memory = estimated(cell, has_tiles=has_tiles)
    assert memory.total_bytes == sum(term.bytes for term in memory.terms)
    assert len({term.name for term in memory.terms}) == len(memory.terms)
    assert all(term.bytes > 0 and term.note for term in memory.terms)


def test_states_are_the_published_bytes_per_parameter():
    full = estimated("grpo-8b.full-alone")
    states = [full.bytes_of(name) for name in ("weights", "gradients", "optimizer")]
    assert sum(states) == 16 * 8_030_261_248
    assert round(sum(states) / GIB, 1) == 119.7
    pure = estimated("grpo-8b.full-alone", changes={"weight_bytes": 2})
    states = [pure.bytes_of(name) for name in ("weights", "gradients", "optimizer")]
    assert sum(states) == 8 * 8_030_261_248
    lora = estimated("grpo-8b.lora-r1", changes={"weight_bytes": 2})
    # Published as 16 bytes an adapter weight; a run here trains them in the master precision.
    assert lora.bytes_of("weights") + lora.bytes_of("adapter") == 2 * 8_030_261_248 + 8 * 2_621_440


def test_sharding_divides_states_and_copies_do_not():
    alone, split = estimated("grpo-8b.full-alone"), estimated("grpo-8b.full")
    for name in ("weights", "gradients", "optimizer"):
        assert split.bytes_of(name) == -(-alone.bytes_of(name) // 4)
    copied = estimated("grpo-8b.full", changes={"strategy": "ddp"})
    assert copied.bytes_of("weights") == alone.bytes_of("weights")
    assert copied.bytes_of("gradients") == 2 * alone.bytes_of("gradients")  # DDP's buckets


@pytest.mark.parametrize(
    ("optim", "bytes_each"),
    [
        ("adamw_torch", 8),
        ("adamw_torch_8bit", 2),
        ("lion_32bit", 4),
        ("sgd", 0),
    ],
)
def test_an_optimizer_s_moments_follow_its_name(optim, bytes_each):
    memory = estimated("sft-8b.full", optim=optim)
    assert memory.bytes_of("optimizer") == bytes_each * 8_190_735_360


@pytest.mark.parametrize(
    ("optim", "moments"), [("adamw_bnb_8bit", 2), ("paged_adamw_8bit", 2), ("lion_8bit", 1)]
)
def test_in_8_bits_the_embedding_keeps_four_bytes_a_moment(optim, moments):
    memory = estimated("sft-8b.full", optim=optim)
    facts = facts_of(run_of("sft-8b.full"))
    embedding = facts.vocab * facts.hidden
    assert memory.bytes_of("optimizer") == moments * (8_190_735_360 + 3 * embedding)


@pytest.mark.parametrize(
    ("cell", "fewest"),
    [
        ("grpo-8b.full-alone", 3),
        ("sft-8b.full", 2),
        ("grpo-8b.lora-r1", 1),
        ("sft-8b.lora-r256", 1),
    ],
)
def test_full_fine_tuning_of_8b_needs_several_gpus_and_lora_one(cell, fewest):
    spec = run_of(cell)
    assert smallest_sharding(spec, facts_of(spec), load_of(spec), H100, CARD) == fewest
    for count in range(1, fewest + 1):
        strategy = "fsdp2" if count > 1 else None
        memory = estimated(cell, changes={"processes": count, "strategy": strategy})
        assert (memory.total_bytes <= H100) == (count == fewest)


@pytest.mark.parametrize("batch", [1, 2])
def test_lora_r1_fits_beside_trl_s_default_pool_under_every_trl(batch):
    for has_tiles in (True, False):
        memory = estimated("grpo-8b.lora-r1", has_tiles=has_tiles, changes={"batch": batch})
        assert memory.bytes_of("vLLM pool") == int(0.3 * H100)
        assert memory.total_bytes <= H100


def test_nothing_fits_anywhere_is_none():
    spec = run_of("sft-8b.full")
    assert smallest_sharding(spec, facts_of(spec), load_of(spec), 2**30, CARD) is None


def test_activations_grow_with_rows_and_shrink_by_checkpointing():
    one = estimated("sft-8b.lora-r256", changes={"batch": 1}).bytes_of("activations")
    two = estimated("sft-8b.lora-r256", changes={"batch": 2}).bytes_of("activations")
    kept = estimated("sft-8b.lora-r256", gradient_checkpointing=False).bytes_of("activations")
    assert two == 2 * one
    assert kept > 5 * two


def test_whole_logits_are_tokens_by_vocabulary():
    memory = estimated("sft-8b.lora-r256", has_tiles=False)
    assert memory.bytes_of("logits") == 2 * 2048 * 151936 * (2 + 4 + 4)
    assert estimated("sft-8b.lora-r256").bytes_of("logits") < memory.bytes_of("logits") / 5


def test_a_sleeping_pool_counts_only_beyond_the_training_step():
    awake = estimated("grpo-8b.lora-r1", card=BARE)
    asleep = estimated("grpo-8b.lora-r1", card=BARE, vllm_enable_sleep_mode=True)
    step = asleep.bytes_of("activations") + asleep.bytes_of("logits")
    pool = int(0.3 * H100)
    assert asleep.bytes_of("vLLM pool") == pool - step
    standing = sum(asleep.bytes_of(name) for name in ("weights", "adapter", "bf16 copies"))
    assert asleep.total_bytes == standing + max(pool, step)
    assert awake.total_bytes > asleep.total_bytes


def test_held_out_rows_count_beyond_the_training_step_alone():
    spec = run_of("sft-8b.lora-r256")
    logits = 2 * 2048 * 151936 * 12
    memory = estimated("sft-8b.lora-r256")
    step = memory.bytes_of("activations") + memory.bytes_of("logits")
    assert memory.bytes_of("evaluation") == logits - step
    few = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"test_rows": 1})})
    smaller = estimate_memory(few, facts_of(few), load_of(few), H100, CARD)
    assert smaller.bytes_of("evaluation") == max(0, logits // 2 - step)


def test_an_unbounded_row_has_no_estimate():
    assert estimated("sft-8b.full", max_length=None) is None


def test_a_pool_must_hold_the_model_and_a_sequence():
    spec = run_of("grpo-8b.lora-r1")
    facts, load = facts_of(spec), load_of(spec)
    assert pool_problem(facts, load, H100) is None
    assert pool_note(facts, load, H100) is None
    small = replace(load, pool=replace(load.pool, share=0.18))
    assert "raise vllm_gpu_memory_utilization" in pool_problem(facts, small, H100)
    long = replace(load, pool=replace(load.pool, longest=131_072))
    assert pool_problem(facts, long, H100) is not None  # Llama 3.1's whole context
    unset = replace(load, pool=replace(load.pool, longest=None))
    assert "vllm_max_model_length is not set" in pool_note(facts, unset, H100)


def test_an_adapter_on_more_modules_is_larger():
    spec = run_of("sft-8b.lora-r256")
    on_head = spec.model_copy(
        update={"lora": Lora(r=256, target_modules=("all-linear", "lm_head"))}
    )
    more = estimate_memory(on_head, facts_of(spec), load_of(spec), H100, CARD)
    less = estimated("sft-8b.lora-r256")
    assert more.bytes_of("adapter") - less.bytes_of("adapter") == 16 * 256 * 156_032
