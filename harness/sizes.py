"""How many parameters a catalogued model has, group by group, and how many a LoRA adapter adds.

Closed forms from a model's shape: nothing is downloaded and nothing allocated. PEFT itself must give
the same integers on a model without weights (`tests/test_worker_architectures.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from harness.catalog import ATTENTION_LAYERS, HEAD, MLP_LAYERS, MODELS, TARGETS, ModelFacts
from harness.errors import ConfigError, did_you_mean
from harness.frozen import Count, Frozen

ASSETS = Path(__file__).parent / "worker" / "assets"
# What a matrix may write in place of module names. PEFT's `all-linear` leaves out the output head.
GROUPS: dict[str, tuple[str, ...]] = {
    word: layers or (*ATTENTION_LAYERS, *MLP_LAYERS) for word, layers in TARGETS.items()
}


class ParameterGroups(Frozen):
    """A model's parameters by what they are, tied ones once."""

    attention: Count  # q, k, v and output projections, with their biases
    mlp: Count  # gate, up and down projections
    embedding: Count
    head: Count  # 0 where it is the embedding
    norms: Count
    matmul: Count  # weights that multiply activations: a tied head counts, biases don't
    layer_matmul: Count  # those of one layer

    @property
    def total(self) -> int:
        """All parameters."""
        return self.attention + self.mlp + self.embedding + self.head + self.norms


def embedded_facts(name: str) -> ModelFacts | None:
    """Return the shape of a model that ships with the harness, from its own config.json."""
    try:
        config = json.loads((ASSETS / name / "config.json").read_text(encoding="utf-8"))
    except OSError:
        return None
    facts = ModelFacts(
        repository=f"embedded:{name}",
        architecture=config["model_type"],
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        ffn=config["intermediate_size"],
        vocab=config["vocab_size"],
        is_tied=config["tie_word_embeddings"],
        parameters=0,
        licence="as the harness",
        is_gated=False,
        is_base=True,
    )
    return facts.model_copy(update={"parameters": count_groups(facts).total})


def facts_of(source: str) -> ModelFacts | None:
    """Return the shape of what a matrix calls its model: catalogued or embedded; None if unknown."""
    kind, _, name = source.partition(":")
    return MODELS.get(source) or (embedded_facts(name) if kind == "embedded" else None)


def count_groups(facts: ModelFacts) -> ParameterGroups:
    """Count a model's parameters by group."""
    query, key = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    linear = {name: rows * columns for name, (rows, columns) in _shapes(facts).items()}
    attention, mlp = (sum(linear[n] for n in group) for group in (ATTENTION_LAYERS, MLP_LAYERS))
    bias = query + 2 * key if facts.architecture == "qwen2" else 0
    head_norms = 2 * facts.head_dim if facts.architecture == "qwen3" else 0
    return ParameterGroups(
        attention=facts.layers * (attention + bias),
        mlp=facts.layers * mlp,
        embedding=linear[HEAD],
        head=0 if facts.is_tied else linear[HEAD],
        norms=facts.layers * (2 * facts.hidden + head_norms) + facts.hidden,
        matmul=facts.layers * (attention + mlp) + linear[HEAD],
        layer_matmul=attention + mlp,
    )


def count_lora(facts: ModelFacts, r: int, target_modules: str | Iterable[str]) -> int:
    """Count the parameters of an adapter: r × (inputs + outputs) for every matrix it is put on.

    `target_modules` is a group's name, names of modules and groups, or, as in PEFT, one pattern that
    is matched against each module's full name.

    Raises: ConfigError if it names no module of the model.
    """
    shapes = _shapes(facts)
    return r * sum(sum(shapes[name]) for name in _targets(facts, target_modules))


def _targets(facts: ModelFacts, target_modules: str | Iterable[str]) -> list[str]:
    """The last name of every module that gets an adapter, once per layer."""
    modules = [
        *(f"model.layers.{i}.self_attn.{n}" for i in range(facts.layers) for n in ATTENTION_LAYERS),
        *(f"model.layers.{i}.mlp.{n}" for i in range(facts.layers) for n in MLP_LAYERS),
        HEAD,
    ]
    if isinstance(target_modules, str) and target_modules not in (*GROUPS, *_shapes(facts)):
        found = _matching(target_modules, modules)
    else:
        words = [target_modules] if isinstance(target_modules, str) else target_modules
        names = [n for word in words for n in GROUPS.get(word, (word,))]
        missed = [n for n in names if not any(_is_named(module, n) for module in modules)]
        if missed:
            raise ConfigError(*(_unknown(name) for name in missed))
        found = [module for module in modules if any(_is_named(module, n) for n in names)]
    if not found:
        raise ConfigError(_unknown(str(target_modules)))
    return [module.rpartition(".")[2] for module in found]


def _matching(pattern: str, modules: Iterable[str]) -> list[str]:
    try:
        return [module for module in modules if re.fullmatch(pattern, module)]
    except re.error:
        return []


def _is_named(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _shapes(facts: ModelFacts) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each linear layer, by its name."""
    query, key = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    return {
        "q_proj": (facts.hidden, query),
        "k_proj": (facts.hidden, key),
        "v_proj": (facts.hidden, key),
        "o_proj": (query, facts.hidden),
        "gate_proj": (facts.hidden, facts.ffn),
        "up_proj": (facts.hidden, facts.ffn),
        "down_proj": (facts.ffn, facts.hidden),
        HEAD: (facts.hidden, facts.vocab),
    }


def _unknown(name: str) -> str:
    known = (*GROUPS, *ATTENTION_LAYERS, *MLP_LAYERS, HEAD)
    return (
        f"target_modules: {name!r} names no linear layer{did_you_mean(name, known)}; expected "
        f"{', '.join(known)}, or a pattern over full names"
    )
