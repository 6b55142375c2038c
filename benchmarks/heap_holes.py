"""How much of a CPU step's freed memory malloc can't use again: what `forecast.HOLES` is fitted on.

    python -m benchmarks.heap_holes

Four runs, a process each: a model of 16 layers and hidden size 384 with random weights, full fine-tuning
and LoRA, 4 rows of 192 tokens and 8 of 256, three steps of the code that is traced. Each is set beside
the replay of its trace through the heap's rules; what the process grew beyond that and beside it, as a
share of the forward pass's temporaries (least squares), is the share of holes. No run that the forecast
is checked by has this shape. Two minutes on a slow core.

What lies beside is taken in two ways, and both shares are printed: `LOADED_LATER`, which is of a worker and
more than this bare process loads, so that the share comes out low; and what this process itself had grown
by before its first step, weights taken off.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import Any

import psutil

from harness.catalog import MODELS
from harness.forecast import HOLES, LOADED_LATER, STEADY_STEPS
from harness.heap import MOST_THRESHOLD, Heap
from harness.memory_replay import replay
from harness.memory_trace import Trace, forward_temporaries
from harness.subject import Adapter, Subject
from harness.trace_cache import traces

SHAPE = {
    "hidden": 384, "heads": 6, "kv_heads": 2, "head_dim": 64, "ffn": 1024, "vocab": 8000, "layers": 16,
}  # fmt: skip
ARMS = {"full": None, "lora-r8": Adapter(r=8, target_modules="all-linear")}
ROWS = ((4, 192), (8, 256))
POLL_S = 0.002
MIB = 2**20


def subject(arm: str, batch: int) -> Subject:
    """Say what a run's step is made of."""
    return Subject(
        facts=MODELS["smollm2"].model_copy(update=SHAPE),
        dtype="float32",
        adapter=ARMS[arm],
        loop="sft",
        batch=batch,
        device="cpu",
        optim="adamw_torch_fused",
    )


def measure(arm: str, batch: int, length: int) -> tuple[int, int]:
    """Take three real steps; return by how many bytes this process grew, and of them before the first."""
    import torch
    import trl  # noqa: F401 - imported before the growth is counted from

    from harness.worker.model_step import build_optimizer, clip, loss_of, without_weights

    torch.set_num_threads(1)
    process = psutil.Process()
    base = process.memory_info().rss
    peak = [base]

    def watch() -> None:
        while True:
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(POLL_S)

    asked = subject(arm, batch)
    model = with_random_weights(without_weights(asked))
    optimizer = build_optimizer(asked, model)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    loaded = process.memory_info().rss - base - weights
    threading.Thread(target=watch, daemon=True).start()
    ids = torch.randint(0, SHAPE["vocab"], (batch, length))
    mask = torch.ones_like(ids)
    for _ in range(STEADY_STEPS):
        loss = loss_of(asked, model, ids, mask, length)
        loss.backward()
        clip(model)
        optimizer.step()
        optimizer.zero_grad()
        del loss
    return peak[0] - base, loaded


def with_random_weights(model: Any) -> Any:
    """Give every parameter of a model on the meta device memory; tied ones stay tied."""
    import torch

    taken: dict[int, Any] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in taken:
                    weights = torch.randn(parameter.shape) * 0.02
                    taken[id(parameter)] = torch.nn.Parameter(weights, parameter.requires_grad)
                module._parameters[name] = taken[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.ones(buffer.shape, dtype=buffer.dtype)
                setattr(module, name, module._buffers[name])
    return model


def main() -> None:
    """Measure, replay, and print a row a run and one line of JSON with the shares."""
    runs = [(arm, batch, length) for arm in ARMS for batch, length in ROWS]
    found = traces([(subject(arm, batch), length) for arm, batch, length in runs])
    by_constant, by_process, holes = [], [], []
    for (arm, batch, length), trace in zip(runs, found, strict=True):
        if not isinstance(trace, Trace):
            sys.exit(trace)
        command = [sys.executable, "-m", "benchmarks.heap_holes", arm, str(batch), str(length)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        grown, loaded = map(int, said.split())
        replayed = replay(trace, [length] * STEADY_STEPS, memory=Heap()).reserved
        temporaries = forward_temporaries(trace.repeated, MOST_THRESHOLD)
        by_constant.append(grown - replayed - LOADED_LATER)
        by_process.append(grown - replayed - loaded)
        holes.append(temporaries)
        forecast = replayed + HOLES * temporaries + LOADED_LATER
        sys.stdout.write(
            f"{arm:8} {batch} x {length}: grew {grown / MIB:.0f} MiB, before its first step "
            f"{loaded / MIB:.0f}, heap {replayed / MIB:.0f}, forward temporaries {temporaries / MIB:.0f}; "
            f"forecast {100 * (forecast / grown - 1):+.1f} %\n"
        )
    shares = {"share": _fitted(by_constant, holes), "share_by_process": _fitted(by_process, holes)}
    sys.stdout.write(json.dumps({**shares, "constant": HOLES}) + "\n")


def _fitted(beyond: list[int], holes: list[int]) -> float:
    """The share by least squares."""
    return sum(b * h for b, h in zip(beyond, holes, strict=True)) / sum(h * h for h in holes)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        sys.stdout.write(
            "{} {}\n".format(*measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
        )
    else:
        main()
