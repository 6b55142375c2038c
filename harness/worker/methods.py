"""Full fine-tuning or LoRA: what is put on the model before TRL trains it.

LoRA goes through PEFT's own LoraConfig. Its default initialisation is the blog's (A uniform with
bound 1/sqrt(d_in), B zero), and `all-linear` is every linear layer but the output head; the blog's
parameter counts include the head.
"""

from __future__ import annotations

from peft import LoraConfig

from harness.spec import RunSpec


def peft_config(spec: RunSpec) -> LoraConfig | None:
    """Return the adapter of a run, or None for full fine-tuning."""
    if spec.lora is None:
        return None
    modules = spec.lora.target_modules
    return LoraConfig(
        r=spec.lora.r,
        lora_alpha=spec.lora.lora_alpha,
        lora_dropout=spec.lora.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
    )
