"""What accelerate really wrapped the model in, held against what the matrix asked for.

Asked to shard on a CPU, accelerate says nothing and averages gradients between whole copies (DDP).
So a run of several processes reads off the wrapped model what it is, writes that into its record,
and stops before the first optimizer step if it is not what was asked for.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch.distributed.fsdp import FSDPModule
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.errors import ConfigError
from harness.record import Distributed
from harness.settings import Parallel
from harness.worker.progress import Progress


def describe(trainer: Trainer, parallel: Parallel) -> Distributed:
    """Say how many processes train, and what wraps the model of a trainer in train()."""
    accelerator = trainer.accelerator
    return Distributed(
        processes=accelerator.num_processes,
        asked=parallel.strategy,
        type=accelerator.distributed_type.value,
        wrapper=wrapper_of(trainer.model_wrapped),
    )


def wrapper_of(model: torch.nn.Module) -> str:
    """Name the class of a wrapped model; where blocks are sharded, that of most blocks."""
    blocks = [type(m).__name__ for m in model.modules() if isinstance(m, FSDPModule)]
    return Counter(blocks).most_common(1)[0][0] if blocks else type(model).__name__


def is_as_asked(trainer: Trainer, parallel: Parallel) -> bool:
    """Whether accelerate did what was asked for."""
    state = trainer.accelerator.state
    if state.num_processes != parallel.processes:
        return False
    if parallel.strategy == "ddp":
        return isinstance(trainer.model_wrapped, torch.nn.parallel.DistributedDataParallel)
    if parallel.strategy == "fsdp2":
        return bool(state.is_fsdp2) and isinstance(trainer.model_wrapped, FSDPModule)
    plugin = getattr(state, "deepspeed_plugin", None)
    return plugin is not None and plugin.zero_stage == 3


class CheckWrapping(TrainerCallback):  # type: ignore[misc]
    """Notes what wraps the model, and stops a run that was to be sharded and is not."""

    def __init__(self, trainer: Trainer, parallel: Parallel, progress: Progress) -> None:
        self._trainer, self._parallel, self._progress = trainer, parallel, progress

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Look at the model, which is wrapped by now.

        Raises: ConfigError if it is not wrapped as asked.
        """
        found = describe(self._trainer, self._parallel)
        self._progress.distributed = found
        if not is_as_asked(self._trainer, self._parallel):
            raise ConfigError(
                f"strategy {found.asked} over {self._parallel.processes} processes was asked for, and "
                f"accelerate ran {found.type} over {found.processes} with {found.wrapper}; sharding "
                "needs a GPU for each process, so run it there or ask for ddp"
            )
