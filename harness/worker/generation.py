"""What samples a GRPO run's completions: transformers, or vLLM beside the trainer or in a server.

TRL starts vLLM, feeds it the trained weights and asks it for completions. Here is what TRL leaves to
its caller: the variables that vLLM reads, a pool that fits a CPU, kernels that can take new weights,
the run's seed, the weight_sync phase; and, for the record, which engine it was and what it reserved.
What this leaves out: whether vLLM is installed at all, which is found before a run starts
(`harness.engines`).

Source: `trl/generation/vllm_generation.py`, TRL 1.16; vLLM 0.31.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import transformers
from accelerate.utils import set_seed
from trl import GRPOConfig, GRPOTrainer

from harness.errors import ConfigError, MachineError
from harness.record import Generation
from harness.samples import Phase
from harness.spec import RunSpec
from harness.worker.journal import Journal
from harness.worker.trl_versions import generation_method, weight_sync_method

T = TypeVar("T")

POOL_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"  # GiB
# vLLM's own default on a CPU is a share of the machine's memory, made for a machine that does
# nothing else: a worker trains beside it, and other workers beside that.
CPU_POOL_GIB = 1
# The record would have to explain a file in the user's cache, and vLLM's key for it does not say
# which kernels were compiled in (see keep_weights_loadable). Inductor's own cache stays.
CPU_VARIABLES = {"VLLM_DISABLE_COMPILE_CACHE": "1"}
VARIABLES = {"VLLM_NO_USAGE_STATS": "1"}


def prepare_engine(config: GRPOConfig, spec: RunSpec, is_cuda: bool) -> list[str]:
    """Set what a vLLM beside the trainer needs, and say in sentences what was chosen for it.

    Raises: ConfigError for a setting that this device can't have.
    """
    if not config.use_vllm or config.vllm_mode != "colocate":
        return []
    for name, value in (VARIABLES if is_cuda else {**VARIABLES, **CPU_VARIABLES}).items():
        os.environ.setdefault(name, value)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:  # else accelerate's launcher has agreed on one
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    if is_cuda:
        return []
    if config.vllm_enable_sleep_mode:
        raise ConfigError(
            "found vllm_enable_sleep_mode: true on a CPU, where vLLM can't free its pool; set it to "
            "false or run on a GPU"
        )
    keep_weights_loadable()
    kernels = (
        "vLLM's packed CPU kernels are off: they can't take the weights that training changes."
    )
    return [kernels, *choose_cpu_pool(spec)]


def free_port() -> int:
    """Return a port that nobody listens to, for the process group that vLLM makes of one process.

    accelerate sets 29500 for everybody, and the second worker of a machine would fail on it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def choose_cpu_pool(spec: RunSpec) -> list[str]:
    """Give a vLLM on CPU a small pool unless the matrix or the user gives one; say so."""
    if POOL_VARIABLE in os.environ or "vllm_gpu_memory_utilization" in spec.trainer:
        return []
    os.environ[POOL_VARIABLE] = str(CPU_POOL_GIB)
    return [
        f"vLLM's pool is {CPU_POOL_GIB} GiB, the harness's own choice on a CPU: neither "
        f"vllm_gpu_memory_utilization nor {POOL_VARIABLE} was given."
    ]


def keep_weights_loadable() -> None:
    """Make vLLM multiply by a layer's weight itself on CPU, not by a copy packed for its kernels.

    Where the CPU has such kernels, vLLM 0.31 packs the weights once, when it loads the model. Then it
    drops those of linear layers, so that TRL's sync fails; and it keeps multiplying by the first
    output head, which no error would tell. Source: `dispatch_cpu_unquantized_gemm`.
    """
    from vllm import _custom_ops
    from vllm.model_executor.layers import utils

    _custom_ops._supports_onednn = False
    utils.check_cpu_sgl_kernel = lambda *_: False


def build_with_engine(make: Callable[[], T], config: GRPOConfig, seed: int) -> T:
    """Build a trainer whose engine may have to be started or reached.

    A vLLM in this process seeds torch with a number of its own, the same for every run: without the
    run's seed set again, all seeds would sample the same noise. As in TRL, each process of a run gets
    noise of its own.

    Raises: MachineError if the vLLM server does not answer.
    """
    try:
        made = make()
    except OSError as error:  # TRL raises requests' ConnectionError, which is not Python's
        if not config.use_vllm or config.vllm_mode != "server":
            raise
        raise MachineError(
            f"no vLLM server answered within vllm_server_timeout={config.vllm_server_timeout:g} s: "
            f"{error} Start it, or set vllm_mode: colocate"
        ) from error
    if config.use_vllm:
        set_seed(seed, device_specific=True)
    return made


def describe_generation(trainer: GRPOTrainer) -> Generation:
    """Say which engine samples for a trainer, and what it has reserved."""
    args = trainer.args
    if not args.use_vllm:
        return Generation(engine="transformers", version=transformers.__version__)
    import vllm

    is_here = args.vllm_mode == "colocate"
    return Generation(
        engine="vllm",
        # A server's version is its own; what is installed here is only its client.
        version=vllm.__version__ if is_here else None,
        mode=args.vllm_mode,
        pool_bytes=pool_bytes(engine_of(trainer)) if is_here else None,
        sleeps=bool(args.vllm_enable_sleep_mode) if is_here else None,
    )


def engine_notes(trainer: GRPOTrainer, spec: RunSpec) -> list[str]:
    """Say in sentences how an engine beside the trainer differs from what trains."""
    notes = []
    if not trainer.args.use_vllm or trainer.args.vllm_mode != "colocate":
        return notes
    config = getattr(getattr(engine_of(trainer), "llm_engine", None), "model_config", None)
    dtype = str(getattr(config, "dtype", "")).removeprefix("torch.")
    if dtype and dtype != spec.model.dtype:
        notes.append(
            f"vLLM samples in {dtype}; the weights that are trained are {spec.model.dtype}."
        )
    if trainer.args.vllm_enable_sleep_mode:
        notes.append(
            "vLLM's sleep mode frees memory without telling torch: read NVML's lenses, not torch's."
        )
    return notes


def engine_of(trainer: GRPOTrainer) -> Any:
    """Return the vLLM engine beside a trainer; None where this TRL keeps it somewhere else."""
    holder = getattr(trainer, "vllm_generation", trainer)
    return getattr(holder, "llm", None)


def pool_bytes(engine: Any) -> int | None:
    """Return the bytes that an engine holds for its key-value cache, None if it doesn't say.

    The tensors themselves, each storage once, since layers may share one; failing that, what was
    asked for. vLLM promises neither name, so that anything may be missing.
    """
    inner = getattr(engine, "llm_engine", None)
    worker = getattr(getattr(inner, "model_executor", None), "driver_worker", None)
    runner = getattr(worker, "model_runner", None)
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in _tensors(getattr(runner, "kv_caches", None))
    }
    if storages:
        return sum(storages.values())
    asked = getattr(getattr(inner, "vllm_config", None), "cache_config", None)
    given = getattr(asked, "kv_cache_memory_bytes", None)
    return given if isinstance(given, int) else None


def mark_phases(trainer: GRPOTrainer, journal: Journal) -> None:
    """Mark what a trainer does to sample: generate, and within it the sync of weights to vLLM."""
    name = generation_method(trainer)
    if name is not None:
        _mark(trainer, name, "generate", journal)
    sync = weight_sync_method(trainer)
    if sync is not None:
        _mark(*sync, "weight_sync", journal)


def _mark(owner: object, name: str, phase: Phase, journal: Journal) -> None:
    method = getattr(owner, name)

    def marked(*args: Any, **kwargs: Any) -> Any:
        with journal.phase(phase):
            return method(*args, **kwargs)

    setattr(owner, name, marked)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
