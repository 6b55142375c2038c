"""What a file of runs names is known before anything is traced."""

from __future__ import annotations

import pytest

from harness.catalog import TIED_HEAD
from harness.errors import ConfigError
from harness.forecast_file import load_forecast_file
from harness.forecast_names import check_names
from harness.rates import load_rates
from tests.test_forecast import write


def problems_of(tmp_path, *runs: str) -> tuple[str, ...]:
    lines = [
        f"  {name}: {{batch: 2, length: {{longest: 64}}, {run}}}\n"
        for name, run in zip("abc", runs, strict=False)
    ]
    path = write(tmp_path, "format: 1\nruns:\n" + "".join(lines))
    try:
        check_names(load_forecast_file(path).runs, load_rates(), path.name)
    except ConfigError as error:
        return error.problems
    return ()


def test_every_unknown_name_is_told_with_its_run(tmp_path):
    model, gpu, optim = problems_of(
        tmp_path,
        "model: smollm",
        "model: smollm2, gpu: L40S",
        "model: smollm2, optim: adamw",
    )
    assert model.startswith("runs.yaml: a: model: 'smollm' is not in the catalog")
    assert gpu.startswith("runs.yaml: b: gpu: 'L40S' is not on the rate card (did you mean")
    assert "--gpu" not in gpu
    assert optim.startswith("runs.yaml: c: optim: found 'adamw' (did you mean ")
    assert "expected adamw_torch, " in optim


@pytest.mark.parametrize(
    "optim", ["adamw_torch", "sgd", "adamw_bnb_8bit", "paged_adamw_32bit", "lion_32bit"]
)
def test_an_optimizer_that_can_be_traced_is_taken(tmp_path, optim):
    assert problems_of(tmp_path, f"model: smollm2, optim: {optim}") == ()


@pytest.mark.parametrize(
    ("model", "layers", "said"),
    [
        ("smollm2", "all-linear", None),
        ("smollm2", "[q_proj, self_attn.v_proj]", None),
        ("Qwen/Qwen3-8B-Base", "all-linear+lm_head", None),
        ("smollm2", "all-linear+lm_head", TIED_HEAD),
        ("smollm2", "[lm_head]", TIED_HEAD),
        (
            "smollm2",
            "all-liner",
            "found 'all-liner' (did you mean 'all-linear'?), expected one of ",
        ),
        ("smollm2", "[q_proj, q_pro]", "found 'q_pro' (did you mean 'q_proj'?), expected some of "),
    ],
)
def test_layers_that_no_model_has_are_refused(tmp_path, model, layers, said):
    run = f"model: {model}, lora: {{r: 8, target_modules: {layers}}}"
    found = problems_of(tmp_path, run)
    assert len(found) == (said is not None)
    assert all(p.startswith(f"runs.yaml: a: lora.target_modules: {said}") for p in found)
