"""What TRL leaves to its caller about the engine that samples, on toy engines and trainers."""

from __future__ import annotations

import json
import os
import random
from types import SimpleNamespace

import numpy
import pytest
import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from harness.errors import ConfigError, MachineError
from harness.matrix import expand, parse_matrix
from harness.worker.generation import (
    CPU_POOL_GIB,
    POOL_VARIABLE,
    build_with_engine,
    choose_cpu_pool,
    describe_generation,
    engine_notes,
    mark_phases,
    pool_bytes,
    prepare_engine,
)
from harness.worker.journal import Journal
from harness.worker.trl_versions import weight_sync_method
from tests.conftest import MATRIX

SPEC = next(s for s in expand(parse_matrix(MATRIX, "m")) if s.task == "grpo")


def config(**more):
    values = {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_enable_sleep_mode": False,
        "vllm_server_timeout": 240.0,
    }
    return SimpleNamespace(**{**values, **more})


def engine(caches=None, asked=None, dtype=torch.bfloat16):
    runner = SimpleNamespace(kv_caches=caches)
    cache = SimpleNamespace(kv_cache_memory_bytes=asked)
    inner = SimpleNamespace(
        model_executor=SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner)),
        vllm_config=SimpleNamespace(cache_config=cache),
        model_config=SimpleNamespace(dtype=dtype),
    )
    return SimpleNamespace(llm_engine=inner)


def test_a_pool_is_its_tensors_each_storage_once():
    first = torch.zeros(4, 8, dtype=torch.bfloat16)
    nested = [first, [first.view(8, 4), torch.zeros(3, dtype=torch.float32)]]
    assert pool_bytes(engine(nested)) == 4 * 8 * 2 + 3 * 4


def test_a_pool_that_shows_no_tensors_is_what_was_asked_for():
    assert pool_bytes(engine([], asked=2**30)) == 2**30
    assert pool_bytes(engine(None, asked=None)) is None


@pytest.mark.parametrize("strange", [None, SimpleNamespace(), SimpleNamespace(llm_engine=None)])
def test_an_engine_of_another_make_has_an_unknown_pool(strange):
    assert pool_bytes(strange) is None


def test_a_cpu_gets_a_small_pool_and_the_record_says_so(monkeypatch):
    monkeypatch.delenv(POOL_VARIABLE, raising=False)
    (note,) = choose_cpu_pool(SPEC)
    assert os.environ[POOL_VARIABLE] == str(CPU_POOL_GIB)
    assert note.startswith(f"vLLM's pool is {CPU_POOL_GIB} GiB")


def test_a_pool_that_somebody_chose_stays(monkeypatch):
    monkeypatch.setenv(POOL_VARIABLE, "3")
    assert choose_cpu_pool(SPEC) == []
    assert os.environ[POOL_VARIABLE] == "3"
    monkeypatch.delenv(POOL_VARIABLE)
    shared = {**SPEC.trainer, "vllm_gpu_memory_utilization": 0.2}
    assert choose_cpu_pool(SPEC.model_copy(update={"trainer": shared})) == []
    assert POOL_VARIABLE not in os.environ


def test_without_a_vllm_in_this_process_nothing_is_prepared():
    before = dict(os.environ)
    assert prepare_engine(config(use_vllm=False), SPEC, is_cuda=False) == []
    assert prepare_engine(config(vllm_mode="server"), SPEC, is_cuda=False) == []
    assert dict(os.environ) == before


def test_workers_of_one_machine_get_ports_of_their_own(monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("MASTER_ADDR", "elsewhere")
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    prepare_engine(config(), SPEC, is_cuda=True)
    assert os.environ["MASTER_PORT"] == "29500"
    monkeypatch.setenv("WORLD_SIZE", "1")
    prepare_engine(config(), SPEC, is_cuda=True)
    assert os.environ["MASTER_ADDR"] == "127.0.0.1"
    assert os.environ["MASTER_PORT"] != "29500"
    assert os.environ["VLLM_NO_USAGE_STATS"] == "0"  # what the user chose stays


def test_sleeping_on_a_cpu_is_refused(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(ConfigError, match="vllm_enable_sleep_mode"):
        prepare_engine(config(vllm_enable_sleep_mode=True), SPEC, is_cuda=False)


@pytest.fixture
def one_process():
    """What accelerate knows once a trainer is built."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("one_process")
def test_the_run_s_seed_counts_after_an_engine_that_sets_its_own():
    build_with_engine(lambda: torch.manual_seed(0), config(), seed=7)
    assert torch.initial_seed() == 7
    drawn = (torch.rand(3).tolist(), random.random(), numpy.random.rand())
    transformers.set_seed(7)  # one process has the seed itself, no number of its own added to it
    assert drawn == (torch.rand(3).tolist(), random.random(), numpy.random.rand())
    build_with_engine(lambda: torch.manual_seed(3), config(use_vllm=False), seed=7)
    assert torch.initial_seed() == 3


def test_a_server_that_never_answers_is_the_machine_s_fault():
    def fail():
        raise OSError("The vLLM server can't be reached at http://a:1.")

    with pytest.raises(MachineError, match=r"vllm_server_timeout=240 s: The vLLM server can't"):
        build_with_engine(fail, config(vllm_mode="server"), seed=0)
    with pytest.raises(OSError, match="can't be reached"):  # about something else than a server
        build_with_engine(fail, config(), seed=0)


def test_transformers_and_a_server_have_no_pool_here():
    here = describe_generation(SimpleNamespace(args=config(use_vllm=False)))
    assert (here.engine, here.mode, here.pool_bytes) == ("transformers", None, None)
    assert here.version


def test_another_precision_than_the_trained_weights_is_said():
    trainer = SimpleNamespace(
        args=config(), vllm_generation=SimpleNamespace(llm=engine(dtype=torch.bfloat16))
    )
    (note,) = engine_notes(trainer, SPEC)
    assert note == "vLLM samples in bfloat16; the weights that are trained are float32."
    trainer.vllm_generation.llm = engine(dtype=torch.float32)
    assert engine_notes(trainer, SPEC) == []
    trainer.args.vllm_enable_sleep_mode = True
    assert "sleep mode" in engine_notes(trainer, SPEC)[0]


class Trainer:
    """Generates, and before that gives its weights to an engine as TRL 1.16 does."""

    def __init__(self, use_vllm):
        self.use_vllm = use_vllm
        self.done = []
        self.vllm_generation = SimpleNamespace(sync_weights=lambda: self.done.append("sync"))

    def _generate(self, prompts):
        if self.use_vllm:
            self.vllm_generation.sync_weights()
        self.done.append(f"generate {prompts}")
        return prompts


def phases(folder, use_vllm):
    trainer, journal = Trainer(use_vllm), Journal(folder, is_cuda=False)
    mark_phases(trainer, journal)
    assert trainer._generate("p") == "p"
    journal.close()
    lines = (folder / "phases.jsonl").read_text().splitlines()
    return trainer.done, [json.loads(line)["phase"] for line in lines]


def test_the_sync_of_weights_is_a_phase_within_generation(tmp_path):
    done, marked = phases(tmp_path, use_vllm=True)
    assert done == ["sync", "generate p"]
    assert marked == ["weight_sync", "generate"]


def test_transformers_samples_without_a_sync(tmp_path):
    assert phases(tmp_path, use_vllm=False)[1] == ["generate"]


def test_the_sync_is_found_under_its_older_name_and_may_be_absent():
    older = SimpleNamespace(use_vllm=True, _move_model_to_vllm=lambda: None)
    assert weight_sync_method(older) == (older, "_move_model_to_vllm")
    assert weight_sync_method(SimpleNamespace(use_vllm=True)) is None
