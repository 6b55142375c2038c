"""The script a person would write without the harness: same model, rows, arguments and seed.

    python -m benchmarks.speed.bare_trl SPEC.json OUTPUT_DIR

Loads, evaluates the test rows, trains, evaluates again, with TRL's SFTTrainer alone. It borrows the
harness's dataset module, so that the rows are the same, and nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

from harness.spec import RunSpec
from harness.worker.data import load_splits
from harness.worker.models import locate


def main() -> None:
    """Train one SFT run."""
    spec = RunSpec.model_validate_json(Path(sys.argv[1]).read_text())
    source = locate(spec.model.source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype="float32")
    splits = load_splits(spec.task, spec.dataset)
    set_seed(spec.seed)
    adapter = spec.lora and LoraConfig(
        r=spec.lora.r,
        lora_alpha=spec.lora.lora_alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=sys.argv[2],
            seed=spec.seed,
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            per_device_eval_batch_size=spec.evaluation.batch_size,
            **spec.trainer,
        ),
        train_dataset=splits.train,
        eval_dataset=splits.test,
        processing_class=AutoTokenizer.from_pretrained(source),
        peft_config=adapter,
    )
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()


if __name__ == "__main__":
    main()
