"""The memory of bitsandbytes' optimizers, whose package needs a GPU: states of the sizes that it makes.

Source: bitsandbytes' documentation ("8-bit optimizers"): a state of 8 bits an element and a float32 a block
of 256; parameters of fewer than 4,096 elements keep float32 states; paged optimizers keep theirs in unified
memory, which torch's allocator does not see. Its kernels update in place, without temporaries.

transformers' trainer has it keep 32 bits for every `nn.Embedding` (`Trainer.create_optimizer`), and for a
head that is tied to one. torchao's optimizer of 8 bits (adamw_torch_8bit) has states of the same sizes and
makes no such exception.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

BLOCK = 256
LEAST = 4096


class Blockwise(torch.optim.Optimizer):
    """An optimizer of bitsandbytes by transformers' name, as far as it holds memory.

    `whole` are parameters that keep 32 bits whatever the name says.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        name: str,
        whole: Iterable[torch.Tensor] = (),
    ) -> None:
        super().__init__(parameters, {})
        self._whole = {id(p) for p in whole}
        self._is_paged = name.startswith("paged_")
        self._is_small = "8bit" in name
        self._moments = 1 if any(w in name for w in ("lion", "rmsprop", "adagrad")) else 2

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Make the states where there are none yet."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    self.state[parameter] = {} if self._is_paged else self._states(parameter)

    def _states(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        made: dict[str, torch.Tensor] = {}
        for i in range(self._moments):
            is_small = self._is_small and id(parameter) not in self._whole
            if is_small and parameter.numel() >= LEAST:
                made[f"state{i}"] = torch.zeros_like(parameter, dtype=torch.uint8)
                made[f"absmax{i}"] = parameter.new_empty(
                    (-(-parameter.numel() // BLOCK),), dtype=torch.float32
                )
            else:
                made[f"state{i}"] = torch.zeros_like(parameter, dtype=torch.float32)
        return made
