"""The files that make and start containers: linted, and held to what they promise. Needs no Docker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from harness.pins import CHOOSABLE

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
# Instructions in order, comments left out and continued lines joined.
INSTRUCTIONS = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.M).replace("\\\n", " ").splitlines()
LAST_STAGE = INSTRUCTIONS[max(i for i, x in enumerate(INSTRUCTIONS) if x.startswith("FROM ")) :]
COMPOSE: dict[str, Any] = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
PASSED_ON = {"CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE"}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def hadolint(file: Path) -> subprocess.CompletedProcess[str]:
    """Lint with the dev extra's hadolint, under the repository's own settings."""
    binary = Path(sys.executable).with_name("hadolint")
    command = [str(binary), "--no-color", "--config", str(ROOT / ".hadolint.yaml"), str(file)]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"hadolint can't run here: {error}")


def test_the_dockerfile_is_clean():
    done = hadolint(ROOT / "Dockerfile")
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_linter_would_see_a_root_user_and_an_unpinned_base(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM debian\nUSER root\n")
    assert {"DL3006", "DL3002"} <= set(
        re.findall(r"DL\d+", hadolint(tmp_path / "Dockerfile").stdout)
    )


@pytest.mark.parametrize(
    "form", [r"^# *syntax=", r"<<-?['\"A-Z]", r"--link\b", r"^ADD ", r"^COPY \."]
)
def test_the_dockerfile_stays_in_the_dialect_of_docker_20_and_copies_by_name(form):
    assert not re.search(form, DOCKERFILE, flags=re.M)


def test_the_image_runs_the_harness_as_a_user_of_its_own():
    assert [x for x in LAST_STAGE if x.startswith("USER ")] == ["USER 1000:1000"]
    assert [x for x in LAST_STAGE if x.startswith("ENTRYPOINT ")] == ['ENTRYPOINT ["harness"]']


def test_no_address_of_an_index_gets_into_the_images_history():
    """An argument of the last stage does; where one holds a password, everybody with the image has it."""
    arguments = {x.split()[1].partition("=")[0] for x in LAST_STAGE if x.startswith("ARG ")}
    assert not {name for name in arguments if "INDEX" in name or "TOKEN" in name}
    assert "://" not in DOCKERFILE


def test_what_is_downloaded_stays_in_a_cache_and_out_of_the_layers():
    runs = [x for x in INSTRUCTIONS if x.startswith("RUN ")]
    fetching = [x for x in runs if "/pip install" in x and "--no-index" not in x]
    assert len(fetching) == 5
    assert all("--mount=type=cache,target=/root/.cache/pip" in x for x in fetching)
    system = [x for x in runs if "apt-get" in x]
    assert len(system) == 3
    for folder in ("/var/lib/apt/lists", "/var/cache/apt"):
        assert all(f"--mount=type=cache,target={folder},sharing=locked" in x for x in system)


@pytest.mark.parametrize("lacks", [None, "gcc", "g++", "python3"])
def test_the_archive_is_asked_only_where_the_base_lacks_something(tmp_path, lacks):
    """A build without a network works on a base that has it all; `python3` answers for venv and headers."""
    for name in {"gcc", "g++", "python3", "apt-get"} - {lacks}:
        (tmp_path / name).write_text("#!/bin/sh\n" + "echo asked\n" * (name == "apt-get"))
        (tmp_path / name).chmod(0o755)
    scripts = [re.sub(r"^RUN( +--\S+)*", "", x) for x in INSTRUCTIONS if "apt-get" in x]
    assert len(scripts) == 3
    for script in scripts:
        done = subprocess.run(
            ["/bin/sh", "-c", script],
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ("asked" in done.stdout) == (lacks is not None and lacks in script), script


def test_every_choosable_version_is_a_build_argument_a_label_and_an_argument_of_make():
    for name in CHOOSABLE:
        assert f'ARG {name.upper()}=""' in INSTRUCTIONS
        assert f'io.lora-harness.{name}="${{{name.upper()}}}"' in LAST_STAGE[-1]
        assert name.upper() in MAKEFILE
        assert name.upper() in SERVICES["harness"]["build"]["args"]


def test_an_image_for_another_release_is_one_command():
    command = ["make", "-n", "image", "TRL=1.14.2", "VLLM=none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--build-arg TRL=1.14.2 --build-arg VLLM=none" in " ".join(done.stdout.split())
    assert "--tag lora-harness:cuda-trl-1.14.2-vllm-none ." in done.stdout
    assert "PEFT" not in done.stdout


@pytest.mark.parametrize("service", ["harness", "harness-cpu"])
def test_compose_passes_only_arguments_that_the_dockerfile_takes(service):
    declared = {x.split()[1].partition("=")[0] for x in INSTRUCTIONS if x.startswith("ARG ")}
    assert SERVICES[service]["build"]["args"].keys() <= declared
    assert SERVICES[service]["build"]["args"]["VARIANT"] == (service.partition("-")[2] or "cuda")


def test_the_base_image_is_the_same_in_every_file():
    base = next(x for x in INSTRUCTIONS if x.startswith("ARG BASE_IMAGE=")).partition("=")[2]
    assert SERVICES["harness"]["build"]["args"]["BASE_IMAGE"] == f"${{BASE_IMAGE:-{base}}}"
    on_cpu = SERVICES["harness-cpu"]["build"]["args"]["BASE_IMAGE"]
    assert f"BASE_IMAGE_CPU ?= {on_cpu.partition(':-')[2].rstrip('}')}\n" in MAKEFILE


def ignored() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_build_context_is_an_allow_list_of_what_the_dockerfile_takes():
    """Exceptions after `*` only, each for something that is copied or mounted, and nothing missing."""
    assert ignored()[0] == "*"
    allowed = {x[1:].split("/")[0] for x in ignored() if x.startswith("!")}
    copied = [x.split()[1:-1] for x in INSTRUCTIONS if x.startswith("COPY ") and "--from" not in x]
    mounted = re.findall(r"--mount=type=bind,source=([^, ]+)", DOCKERFILE)
    taken = {name.split("/")[0] for names in (*copied, mounted) for name in names}
    assert allowed == taken


def test_hidden_and_compiled_files_stay_out_even_below_what_is_allowed():
    after = ignored()[max(ignored().index("!harness"), ignored().index("!wheels/*.whl")) + 1 :]
    assert {"**/.*", "**/__pycache__"} <= set(after)
    assert [x for x in after if x.startswith("!")] == ["!wheels/.gitkeep"]


@pytest.mark.slow
def test_compose_follows_the_schema_of_the_specification(tmp_path):
    def problems(file: Path) -> str:
        command = [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
        ]
        done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    assert problems(ROOT / "docker-compose.yml") == ""
    broken = tmp_path / "docker-compose.yml"
    broken.write_text((ROOT / "docker-compose.yml").read_text().replace("cap_drop", "capdrop"))
    assert "capdrop" in problems(broken)


def test_both_services_are_one_but_for_the_image_and_the_gpu():
    gpu, cpu = SERVICES["harness"], SERVICES["harness-cpu"]
    assert gpu.keys() - cpu.keys() == {"deploy", "ulimits"}
    assert cpu.keys() - gpu.keys() == {"profiles"}
    assert {k for k in gpu.keys() & cpu.keys() if gpu[k] != cpu[k]} == {"image", "build"}
    assert cpu["profiles"] == ["cpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {
        "driver": "nvidia",
        "count": "all",
        "capabilities": ["gpu", "compute", "utility"],
    }


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_may_do_no_more_than_it_needs(service):
    found = SERVICES[service]
    assert found["read_only"] is True
    assert found["init"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert (
        not {"privileged", "cap_add", "devices", "pid", "ipc", "env_file", "ports"} & found.keys()
    )
    assert [mount["target"] for mount in found["volumes"]] == ["/work/results", "/cache"]
    assert found["tmpfs"] == ["/tmp:exec,mode=1777"]


@pytest.mark.parametrize("service", SERVICES)
def test_the_token_is_a_file_and_never_an_environment_variable(service):
    environment = SERVICES[service]["environment"]
    assert {k: v for k, v in environment.items() if "TOKEN" in k} == {
        "HF_TOKEN_PATH": "/run/secrets/hf_token"
    }
    assert SERVICES[service]["secrets"] == ["hf_token"]
    assert COMPOSE["secrets"] == {"hf_token": {"file": "${HF_TOKEN_FILE:-./secrets/anonymous}"}}
    assert (ROOT / "secrets" / "anonymous").read_bytes() == b""


@pytest.mark.parametrize("service", SERVICES)
def test_a_hosts_variable_is_passed_on_and_an_unset_one_stays_unset(service):
    """An empty CUDA_VISIBLE_DEVICES hides every GPU; only an entry without a value is never empty."""
    environment = SERVICES[service]["environment"]
    assert {name for name, value in environment.items() if value is None} == PASSED_ON


def test_stopping_leaves_time_to_end_the_workers_and_to_seal_the_study():
    from harness.launch.watch import UNKILLABLE_S
    from harness.plan import Request

    minutes = re.fullmatch(r"(\d+)m", SERVICES["harness"]["stop_grace_period"])
    assert minutes
    assert int(minutes[1]) * 60 >= Request.grace_s + UNKILLABLE_S + 60


def test_every_variable_of_compose_is_explained_in_the_example():
    used = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text())) | PASSED_ON
    explained = set(re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), flags=re.M))
    assert used - {name.upper() for name in CHOOSABLE} == explained
