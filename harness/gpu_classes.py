"""Classes of GPUs by the memory that they are sold with, and what is left of it.

A card shows a little less than it is sold with. Source of the totals: what nvidia-smi shows of a T4 (16),
an A10G (24, 23,028 MiB), an A100 40GB, an L40S (48), an H100 (80) and an H200 (141).
"""

from __future__ import annotations

from harness.rates import RateCard

_MIB = 1 << 20
_SMALL = {"16 GB": 15_360 * _MIB, "24 GB": 23_028 * _MIB, "40 GB": 40_960 * _MIB}
_ON_CARD = {"48 GB": "L40S 48GB", "80 GB": "H100 80GB", "141 GB": "H200 141GB"}
_TOTALS = {"48 GB": 46_068 * _MIB, "80 GB": 81_559 * _MIB, "141 GB": 143_771 * _MIB}


def classes(card: RateCard) -> dict[str, int]:
    """Bytes of each class, smallest first; the rate card's figure where it has the GPU."""
    found = dict(_SMALL)
    for name, gpu in _ON_CARD.items():
        known = card.gpus.get(gpu)
        found[name] = known.memory_bytes.value if known else _TOTALS[name]
    return found


def is_hopper(gpu: str) -> bool:
    """Whether a GPU's cuBLAS takes Hopper's larger workspace."""
    return any(word in gpu for word in ("H100", "H200", "GH200", "H800", "H20"))
