"""What a worker holds after a step: its RSS, and a census of live tensors and objects.

A leak of small things hides in the noise of RSS for thousands of steps; counted, it shows in ten. What was
there before the worker was forked is frozen and not counted. What this leaves out: what a step's growth
means (`compare/memory`).
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys

import psutil
import torch


def rss_after_giving_back() -> int:
    """Return the worker's RSS in bytes, after freeing what only waits for Python's collector or is glibc's.

    Neither of the two is a leak.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)
    return int(psutil.Process(os.getpid()).memory_info().rss)


def count_held() -> dict[str, int]:
    """Count what is alive: tensors, bytes of their storages, tracked objects, blocks of Python."""
    blocks = sys.getallocatedblocks()
    objects = gc.get_objects()
    # By type: `isinstance` would ask proxies for their class, and load what they stand for.
    tensors = [each for each in objects if issubclass(type(each), torch.Tensor)]
    sizes: dict[int, int] = {}
    for each in tensors:
        if each.device.type == "meta":
            continue
        storage = each.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    return {
        "tensors": len(tensors),
        "tensor_bytes": sum(sizes.values()),
        "objects": len(objects),
        "blocks": blocks,
    }
