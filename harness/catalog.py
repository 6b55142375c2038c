"""What is known of the page's models and datasets without asking the Hub.

Shapes give parameter counts, memory and compute before anything is downloaded, the toy model of a
rehearsal, and the meta-device model that the counts are tested on. Source of the shapes: the
repositories' config.json; of the rows and licences: their cards, November 2026.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.frozen import Frozen

Architecture = Literal["llama", "qwen2", "qwen3", "smollm3"]


class ModelFacts(Frozen):
    """A model's shape and terms."""

    repository: str
    architecture: Architecture
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    is_tied: bool = Field(description="whether the output head is the embedding")
    parameters: int = Field(description="all weights, tied ones once")
    licence: str
    is_gated: bool = Field(description="whether its licence has to be accepted on the Hub first")
    is_base: bool = Field(description="pre-trained only")


class DatasetFacts(Frozen):
    """A dataset's schema and terms."""

    repository: str
    config: str | None = Field(description="the configuration that is loaded; null is the default")
    rows: dict[str, int | None] = Field(description="split → rows; null where it is not confirmed")
    columns: tuple[str, ...] = Field(description="the columns that are read")
    licence: str
    tokens_per_row: int = Field(
        description="rough mean length of a row as text tokens, for estimates only"
    )


def _llama(
    repository: str, hidden: int, layers: int, heads: int, head_dim: int, ffn: int, parameters: int
) -> ModelFacts:
    return ModelFacts(
        repository=repository,
        architecture="llama",
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=8,
        head_dim=head_dim,
        ffn=ffn,
        vocab=128256,
        is_tied="3.2" in repository,
        parameters=parameters,
        licence="llama3.2" if "3.2" in repository else "llama3.1",
        is_gated=True,
        is_base="Instruct" not in repository,
    )


_MODELS = (
    *(
        _llama(f"meta-llama/Llama-3.2-1B{kind}", 2048, 16, 32, 64, 8192, 1_235_814_400)
        for kind in ("", "-Instruct")
    ),
    *(
        _llama(f"meta-llama/Llama-3.2-3B{kind}", 3072, 28, 24, 128, 8192, 3_212_749_824)
        for kind in ("", "-Instruct")
    ),
    *(
        _llama(f"meta-llama/Llama-3.1-8B{kind}", 4096, 32, 32, 128, 14336, 8_030_261_248)
        for kind in ("", "-Instruct")
    ),
    ModelFacts(
        repository="Qwen/Qwen3-8B-Base",
        architecture="qwen3",
        hidden=4096,
        layers=36,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ffn=12288,
        vocab=151936,
        is_tied=False,
        parameters=8_190_735_360,
        licence="apache-2.0",
        is_gated=False,
        is_base=True,
    ),
    ModelFacts(
        repository="Qwen/Qwen3-0.6B",
        architecture="qwen3",
        hidden=1024,
        layers=28,
        heads=16,
        kv_heads=8,
        head_dim=128,
        ffn=3072,
        vocab=151936,
        is_tied=True,
        parameters=596_049_920,
        licence="apache-2.0",
        is_gated=False,
        is_base=False,
    ),
    ModelFacts(
        repository="Qwen/Qwen2.5-3B-Instruct",
        architecture="qwen2",
        hidden=2048,
        layers=36,
        heads=16,
        kv_heads=2,
        head_dim=128,
        ffn=11008,
        vocab=151936,
        is_tied=True,
        parameters=3_085_938_688,
        licence="qwen-research (non-commercial)",
        is_gated=False,
        is_base=False,
    ),
    ModelFacts(
        repository="HuggingFaceTB/SmolLM3-3B",
        architecture="smollm3",
        hidden=2048,
        layers=36,
        heads=16,
        kv_heads=4,
        head_dim=128,
        ffn=11008,
        vocab=128256,
        is_tied=True,
        parameters=3_075_098_624,
        licence="apache-2.0",
        is_gated=False,
        is_base=False,
    ),
)
_SMOLLM2 = ModelFacts(
    repository="HuggingFaceTB/SmolLM2-135M-Instruct",
    architecture="llama",
    hidden=576,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    ffn=1536,
    vocab=49152,
    is_tied=True,
    parameters=134_515_008,
    licence="apache-2.0",
    is_gated=False,
    is_base=False,
)
# By what a matrix calls them: the repository, or the harness's own word for one.
MODELS: dict[str, ModelFacts] = {
    **{facts.repository: facts for facts in _MODELS},
    "smollm2": _SMOLLM2,
}

_DATASETS = (
    DatasetFacts(
        repository="allenai/tulu-3-sft-mixture",
        config=None,
        rows={"train": 939_343},
        columns=("messages",),
        licence="odc-by (parts are non-commercial)",
        tokens_per_row=600,
    ),
    DatasetFacts(
        repository="open-thoughts/OpenThoughts-114k",
        config=None,
        rows={"train": 113_957},
        columns=("system", "conversations"),
        licence="apache-2.0",
        tokens_per_row=6000,
    ),
    DatasetFacts(
        repository="openai/gsm8k",
        config="main",
        rows={"train": 7_473, "test": 1_319},
        columns=("question", "answer"),
        licence="mit",
        tokens_per_row=100,
    ),
    DatasetFacts(
        repository="zwhe99/DeepMath-103K",
        config=None,
        rows={"train": 103_022},
        columns=("question", "final_answer"),
        licence="mit",
        tokens_per_row=100,
    ),
    DatasetFacts(
        repository="HuggingFaceH4/OpenR1-Math-220k-default-verified",
        config=None,
        rows={"train": None},
        columns=("problem", "solution"),
        licence="apache-2.0 (of the parent dataset)",
        tokens_per_row=120,
    ),
)
DATASETS: dict[str, DatasetFacts] = {facts.repository: facts for facts in _DATASETS}


class RowTokens(Frozen):
    """The longest row of a dataset that the harness makes itself, as the embedded model reads it."""

    prompt: int
    row: int = Field(description="prompt and completion")


OWN_ROWS: dict[str, RowTokens] = {
    "micro-arithmetic": RowTokens(prompt=10, row=23),
    "micro-steps": RowTokens(prompt=10, row=31),
}

# The linear layers of every architecture above, by the part of the model they are in.
ATTENTION_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_LAYERS = ("gate_proj", "up_proj", "down_proj")
HEAD = "lm_head"
# What `lora.target_modules` may say in a word → the layers; null leaves them to PEFT, which takes every
# linear layer but the output head.
TARGETS: dict[str, tuple[str, ...] | None] = {
    "all-linear": None,
    "attention": ATTENTION_LAYERS,
    "mlp": MLP_LAYERS,
    "all-linear+lm_head": (*ATTENTION_LAYERS, *MLP_LAYERS, HEAD),
}
# Source: PEFT 0.21 `BaseTuner._check_tied_modules` and `ensure_weight_tying`, peft issue 2777.
TIED_HEAD = (
    f"{HEAD} of this model is its embedding (tied weights): an adapter on the head alone would be "
    "merged into the embedding too, and PEFT's ensure_weight_tying adapts both; leave the head out, "
    "or use a model that has one of its own"
)
