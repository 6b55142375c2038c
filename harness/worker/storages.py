"""Every storage of a step from allocation to release, while shapes flow and nothing is computed.

A dispatch mode sees each operation of torch below autograd and autocast. A storage that an operation's
results hold and its arguments don't is an allocation; its release is when the last reference drops, seen
by a weak reference. Views share a storage, so they cost nothing.

Under any dispatch mode torch takes every tensor for a subclass, and then sums gradients into a new tensor
where it would otherwise add in place (`torch/csrc/autograd/input_buffer.cpp`, `accumulate_grad.h`). Sums
that the backward pass makes with gradients switched off are turned back into in-place ones here.

What this leaves out: memory that kernels take inside one operation.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.memory_trace import ALLOCATE, FREE, MARK, Event

aten = torch.ops.aten

DEVICE = torch.ops.prim.device.default
COPIES = (aten._to_copy.default,)
SUMS = (aten.add.Tensor,)


class StorageLog(TorchDispatchMode):
    """Events of storages in order, each with the unit of layers that the step was in."""

    def __init__(self, marked_widths: Iterable[int]) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.kinds: dict[int, str] = {}
        self.scored = 0  # rows that a mask over tokens keeps
        self._widths = set(marked_widths)  # a dimension as wide as the vocabulary, or a tile of it
        self._ids: dict[int, int] = {}  # of a live storage, by its address
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._next = 0
        self._units: dict[int, int | None] = {}  # of every storage that was seen
        self.unit: int | None = None
        self.phase = "setup"

    def mark(self, name: str) -> None:
        """Write a mark between events."""
        self.phase, self.unit = name, None
        self.events.append(Event(MARK, name=name))

    def end(self) -> None:
        """Stop: what goes away from now on is the trace's own taking down."""
        self._watched.clear()

    def see(
        self, tensor: torch.Tensor, kind: str | None = None, like: torch.Tensor | None = None
    ) -> int:
        """Note the storage of a tensor, if it is new, and return its id.

        In an optimizer a new one belongs to the unit of the tensor that it was made `like`.
        """
        storage = tensor.untyped_storage()
        key = storage._cdata
        found = self._ids.get(key)
        if found is None:
            found = self._next
            self._next += 1
            self._ids[key] = found
            self._units[found] = self._unit_of(like) if self.phase == "optimizer" else self.unit
            self.events.append(Event(ALLOCATE, found, storage.nbytes(), self._units[found]))
            self._watched[found] = weakref.ref(storage, self._release(key, found))
        if kind is not None:
            self.kinds[found] = kind
        return found

    def id_of(self, tensor: torch.Tensor) -> int | None:
        """Return the id of a tensor's storage, if it was seen."""
        return self._ids.get(tensor.untyped_storage()._cdata)

    def _unit_of(self, tensor: torch.Tensor | None) -> int | None:
        found = None if tensor is None else self.id_of(tensor)
        return None if found is None else self._units[found]

    def _release(self, key: int, found: int) -> Callable[[Any], None]:
        def gone(_: Any) -> None:
            if self._watched.pop(found, None) is not None:
                self._ids.pop(key, None)
                is_spread = self.phase in ("optimizer", "step")
                unit = self._units[found] if is_spread else self.unit
                self.events.append(Event(FREE, found, unit=unit))

        return gone

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is DEVICE and isinstance(args[0], FakeTensor):  # most of all calls
            return args[0].fake_device
        result = self._run(func, args, kwargs or {})
        kind = self._kind(func, args)
        likes = _likes(args)
        for i, leaf in enumerate(tree_leaves(result)):
            if isinstance(leaf, torch.Tensor):
                found = self.see(leaf, like=likes[min(i, len(likes) - 1)] if likes else None)
                is_wide = leaf.dim() > 1 and not self._widths.isdisjoint(leaf.shape[-1:])
                if kind or is_wide:
                    self.kinds.setdefault(found, kind or "logits")
        return result

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation, or what stands for it where its result hangs on values."""
        if func in SUMS and self.phase == "backward" and not torch.is_grad_enabled() and not kwargs:
            left, right = args[:2]
            is_like = isinstance(right, torch.Tensor) and left.shape == right.shape
            if is_like and left.dtype == right.dtype and left.is_contiguous():
                return left.add_(right)
        if func is aten.index.Tensor and args[1][0] is not None and args[1][0].dtype == torch.bool:
            return args[0].new_empty((self.scored, *args[0].shape[args[1][0].dim() :]))
        if func is aten.masked_select.default:
            return args[0].new_empty((self.scored,))
        if func in (aten.index_put_.default, aten._index_put_impl_.default):
            return args[0]
        if func is aten.index_put.default:
            return args[0].clone()
        return func(*args, **kwargs)

    def _kind(self, func: Any, args: tuple[Any, ...]) -> str | None:
        """Name a copy that autocast makes of a weight."""
        if func in COPIES and isinstance(args[0], torch.Tensor):
            found = self.id_of(args[0])
            if found is not None and self.kinds.get(found) in ("weights", "adapter"):
                return "copies"
        return None


def _likes(args: tuple[Any, ...]) -> list[torch.Tensor]:
    """The tensors that an operation's results are one by one like: its first argument's."""
    first = args[0] if args else None
    if isinstance(first, torch.Tensor):
        return [first]
    return (
        [t for t in first if isinstance(t, torch.Tensor)] if isinstance(first, list | tuple) else []
    )
