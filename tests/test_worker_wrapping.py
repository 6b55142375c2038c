"""What the shipped files make accelerate do, and what really wraps each architecture of the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.data_loader import BatchSamplerShard
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from torch.utils.data import BatchSampler
from transformers import AutoModelForCausalLM

from harness.catalog import MODELS
from harness.launch import Launch
from harness.launch.parallel import launch_arguments
from harness.settings import Parallel, Strategy
from harness.spec import RunSpec
from harness.worker.architectures import toy_config
from tests.fake_worker import make_attempt

LAYERS = {
    "llama": "LlamaDecoderLayer",
    "qwen2": "Qwen2DecoderLayer",
    "qwen3": "Qwen3DecoderLayer",
    "smollm3": "SmolLM3DecoderLayer",
}


def told(tmp_path, strategy: Strategy) -> Any:
    """The arguments of `accelerate launch`, with the shipped file merged in by accelerate itself."""
    make_attempt(tmp_path, bf16=False)
    spec = RunSpec.model_validate_json((tmp_path / "spec.json").read_text())
    launch = Launch(parallel=Parallel(processes=2, strategy=strategy))
    arguments = launch_arguments(spec, launch, tmp_path, "a.module")
    merged, _, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    return merged


def changed(environment: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if os.environ.get(k) != v}


@pytest.fixture
def fsdp_variables(tmp_path, monkeypatch) -> dict[str, str]:
    """What accelerate sets for the processes of an fsdp2 run, set here."""
    variables = changed(prepare_multi_gpu_env(told(tmp_path, "fsdp2")))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def test_the_ddp_file_starts_processes_and_shards_nothing(tmp_path):
    arguments = told(tmp_path, "ddp")
    assert arguments.multi_gpu
    assert not any((arguments.use_fsdp, arguments.use_deepspeed, arguments.cpu))
    variables = changed(prepare_multi_gpu_env(arguments))
    assert not any("FSDP" in name or "DEEPSPEED" in name for name in variables)
    assert (arguments.nproc_per_node, variables["ACCELERATE_MIXED_PRECISION"]) == ("2", "no")


def test_the_fsdp2_file_builds_accelerate_s_plugin(fsdp_variables):
    assert fsdp_variables["ACCELERATE_USE_FSDP"] == "true"
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.transformer_cls_names_to_wrap is None  # the model's own: see the file
    assert plugin.auto_wrap_policy is not None
    assert not plugin.cpu_ram_efficient_loading
    assert not plugin.activation_checkpointing
    assert type(plugin.cpu_offload).__name__ == "OffloadPolicy"
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"


@pytest.mark.parametrize("facts", MODELS.values(), ids=lambda f: f.repository)
def test_the_plugin_finds_the_decoder_layer_of_every_model(fsdp_variables, facts):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(toy_config(facts, 64))
    plugin = FullyShardedDataParallelPlugin()
    plugin.set_auto_wrap_policy(model)
    assert plugin.transformer_cls_names_to_wrap == [LAYERS[facts.architecture]]
    classes = plugin.auto_wrap_policy.keywords["transformer_layer_cls"]
    assert classes == {type(model.model.layers[0])}


def test_naming_the_layers_of_all_architectures_in_one_file_would_be_refused(fsdp_variables):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(toy_config(next(iter(MODELS.values())), 64))
    plugin = FullyShardedDataParallelPlugin(transformer_cls_names_to_wrap=list(LAYERS.values()))
    with pytest.raises(ValueError, match="Could not find the transformer layer class"):
        plugin.set_auto_wrap_policy(model)


def test_the_zero3_file_builds_accelerate_s_plugin(tmp_path, monkeypatch):
    """DeepSpeed itself isn't needed for its configuration; nothing of it runs here."""
    arguments = told(tmp_path, "zero3")
    assert arguments.use_deepspeed
    arguments.deepspeed_fields_from_accelerate_config = ""
    _, environment = prepare_deepspeed_cmd_env(arguments)
    for name, value in changed(environment).items():
        monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    assert plugin.zero_stage == 3
    assert plugin.hf_ds_config.is_zero3()
    assert plugin.zero3_init_flag is False
    assert (plugin.offload_optimizer_device, plugin.offload_param_device) == ("none", "none")
    assert plugin.deepspeed_config["zero_optimization"]["stage"] == 3
    assert DistributedType.DEEPSPEED.value == "DEEPSPEED"


def test_the_processes_of_a_step_share_the_rows_of_one_large_batch():
    """Process r takes batch r of each step: two of 8 are the one of 16, in its order."""
    rows = torch.randperm(64, generator=torch.Generator().manual_seed(3)).tolist()
    whole = list(BatchSampler(rows, batch_size=16, drop_last=False))
    halves = [
        list(BatchSamplerShard(BatchSampler(rows, 8, False), num_processes=2, process_index=r))
        for r in (0, 1)
    ]
    assert [[*a, *b] for a, b in zip(*halves, strict=True)] == whole


@pytest.mark.slow
def test_every_architecture_shards_over_two_processes_and_computes_the_same(tmp_path):
    arguments = told(tmp_path, "fsdp2")
    environment = {**prepare_multi_gpu_env(arguments), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_addr", "127.0.0.1", "--master_port", arguments.master_port]
    done = subprocess.run(
        [*command, "-m", "tests.sharded_toys"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *toys, evaluated = [json.loads(line) for line in done.stdout.splitlines()]
    by_repository = {facts.repository: facts for facts in MODELS.values()}
    assert {(t["repository"], t["has_adapter"]) for t in toys} == {
        (name, has_adapter) for name in by_repository for has_adapter in (False, True)
    }
    for toy in toys:
        layer = f"FSDP{LAYERS[by_repository[toy['repository']].architecture]}"
        assert toy["layer_classes"] == [layer] == [toy["wrapper"]]
        assert toy["wrapped"].count(layer) == toy["layers"] >= 2
        assert toy["all_layers_sharded"]
        assert toy["as_asked"] == [False, True]
        assert 0.4 < toy["local_share"] < 0.6
        assert toy["loss"][1] == pytest.approx(toy["loss"][0], rel=1e-5)
        assert toy["gradient_norm"][0] > 0
        assert toy["gradient_norm"][1] == pytest.approx(toy["gradient_norm"][0], rel=1e-4)
    whole, sharded = evaluated["whole"], evaluated["sharded"]
    assert sharded["nll"] == pytest.approx(whole["nll"], rel=1e-6)
    assert sharded["texts"] == whole["texts"]
    assert len(set(whole["texts"])) > 1
