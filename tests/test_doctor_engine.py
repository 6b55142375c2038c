"""Docker, by what its command says: a fake stands in for the command, no engine is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.doctor_driver import Torch
from harness.doctor_engine import Answer, ask_docker, check_engine
from tests.doctor_cases import needs

INFO = {"ServerVersion": "29.1.0", "Runtimes": {"runc": {}}, "ServerErrors": None}
GPU_INFO = {**INFO, "Runtimes": {"runc": {}, "nvidia": {}}}
LABELS = {
    "org.opencontainers.image.version": "0.9",
    "io.lora-harness.variant": "cpu",
    "io.lora-harness.trl": "1.16.0",
    "io.lora-harness.torch": "2.13.0",
    "maintainer": "hf_notOursToShow",
}


class Docker:
    """The `docker` command: what `info` answers, and the labels of the images that are there."""

    def __init__(
        self,
        info: Answer | Mapping[str, Any] | None = None,
        images: Mapping[str, Mapping[str, str]] | None = None,
        refusal: str = "",
    ) -> None:
        info = INFO if info is None else info
        self.info = info if isinstance(info, Answer) else Answer(0, json.dumps(info))
        self.images, self.refusal = images or {}, refusal
        self.asked: list[str] = []

    def __call__(self, arguments):
        assert arguments[arguments.index("--format") + 1] == "{{json .}}"
        if arguments[0] == "info":
            return self.info
        name = arguments[-1]
        self.asked.append(name)
        if name not in self.images:
            said = self.refusal or f"Error response from daemon: No such image: {name}:latest"
            return Answer(1, "", said)
        config = {"Labels": self.images[name], "Env": ["HF_TOKEN=hf_notOursToShow"]}
        return Answer(0, json.dumps({"Id": "sha256:1", "Config": config}))


def checks(docker, image=None, matrix="cpu", version="0.9", environ=None, has_hook=False):
    found, torch = check_engine(needs(matrix), docker, image, environ or {}, version, has_hook)
    return {check.name: check for check in found}, torch


def test_without_docker_there_is_a_note_unless_an_image_was_asked_for():
    found, _ = checks(lambda _: None)
    assert (found["engine"].word, found["engine"].sentence) == (
        "note",
        "no docker command: it is needed for containers alone",
    )
    found, _ = checks(lambda _: None, "lora-harness:cuda")
    assert (found["engine"].word, found["engine"].advice) == ("problem", "install Docker Engine")
    assert found["engine"].exit_code == 7


DOWN = "Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?"
DENIED = "permission denied while trying to connect to the Docker daemon socket"


@pytest.mark.parametrize(
    ("said", "text", "advice"),
    [
        (DOWN, "no engine answers", "systemctl start docker"),
        (DENIED, "this user may not talk to the engine", "join the group `docker`"),
        ("client version 1.50 is too new", "client version 1.50 is too new", "docker info"),
    ],
)
def test_an_engine_that_refuses_is_told_by_old_and_new_clients(said, text, advice):
    old = Answer(0, json.dumps({"ServerErrors": [said]}))
    new = Answer(1, json.dumps({"ServerVersion": ""}), said)
    for answer in (old, new, Answer(1, "", said)):
        found, torch = checks(Docker(answer), "x")
        assert list(found) == ["engine"]
        assert found["engine"].word == "problem"
        assert text in found["engine"].text
        assert advice in found["engine"].advice
        assert torch is None
        assert checks(Docker(answer))[0]["engine"].word == "note"


def test_an_engine_that_hangs_or_babbles_is_told():
    found, _ = checks(Docker(Answer(None)))
    assert found["engine"].text == "the engine does not answer within 5 s"
    found, _ = checks(Docker(Answer(0, "[]")))
    assert found["engine"].text == "the engine does not answer: not a word"


def test_an_engine_that_answers_is_named():
    found, _ = checks(Docker())
    assert (found["engine"].word, found["engine"].text) == ("ok", "Docker 29.1.0 answers")


def test_without_the_nvidia_runtime_the_engines_own_words_are_explained():
    found, _ = checks(Docker(), matrix="blog")
    check = found["gpu runtime"]
    assert check.word == "note"
    assert '`could not select device driver "nvidia" with capabilities: [[gpu]]`' in check.text
    assert "install the NVIDIA Container Toolkit" in check.advice
    assert "nvidia-ctk runtime configure --runtime=docker" in check.advice
    assert checks(Docker(), "x", "blog")[0]["gpu runtime"].word == "problem"


@pytest.mark.parametrize(
    ("info", "has_hook", "way"),
    [
        (GPU_INFO, False, "the NVIDIA runtime"),
        (
            {**INFO, "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]},
            False,
            "CDI",
        ),
        (INFO, True, "nvidia-container-runtime-hook"),
    ],
)
def test_each_way_to_a_gpu_counts(info, has_hook, way):
    found, _ = checks(Docker(info), matrix="blog", has_hook=has_hook)
    assert (found["gpu runtime"].word, found["gpu runtime"].text) == (
        "ok",
        f"containers get GPUs by {way}",
    )


def test_other_devices_are_no_gpus():
    info = {**INFO, "DiscoveredDevices": [{"Source": "cdi", "ID": "vendor.com/nic=0"}]}
    assert checks(Docker(info), matrix="blog")[0]["gpu runtime"].word == "note"


def test_a_matrix_on_the_cpu_asks_for_no_gpu_runtime():
    assert "gpu runtime" not in checks(Docker(), matrix="cpu")[0]


def test_the_image_of_compose_is_looked_for_unless_another_is_named():
    docker = Docker()
    checks(docker)
    checks(docker, matrix="blog")
    checks(docker, environ={"HARNESS_IMAGE_CPU": "mine:cpu"})
    checks(docker, matrix="blog", environ={"HARNESS_IMAGE": "mine:cuda"})
    checks(docker, "asked")
    assert docker.asked == [
        "lora-harness:cpu",
        "lora-harness:cuda",
        "mine:cpu",
        "mine:cuda",
        "asked",
    ]


def test_a_missing_image_names_what_makes_it():
    found, torch = checks(Docker())
    assert (found["image"].word, found["image"].sentence, torch) == (
        "note",
        "no image lora-harness:cpu; `make image-cpu` makes it",
        None,
    )
    assert checks(Docker(), "lora-harness:cuda", "blog")[0]["image"].advice.startswith(
        "`make image`"
    )
    mine = checks(Docker(), environ={"HARNESS_IMAGE_CPU": "mine:1"})[0]["image"]
    assert mine.advice == "`docker compose build harness-cpu` makes it"
    asked = checks(Docker(), "other:1")[0]["image"]
    assert (asked.word, asked.text) == ("problem", "no image other:1")
    assert "docker images" in asked.advice


@pytest.mark.parametrize(
    ("tag", "command"),
    [
        ("cuda-trl-1.14.2", "make image TRL=1.14.2"),
        ("cpu-trl-1.14.2", "make image-cpu TRL=1.14.2"),
        ("cuda-trl-1.14.2-peft-0.20.0-vllm-none", "make image TRL=1.14.2 PEFT=0.20.0 VLLM=none"),
    ],
)
def test_an_image_for_a_release_is_made_by_make_as_compose_would_build_the_pinned_one(tag, command):
    name = f"lora-harness:{tag}"
    for found, _ in (checks(Docker(), name), checks(Docker(), environ={"HARNESS_IMAGE_CPU": name})):
        assert found["image"].advice == f"`{command}` makes it"


def test_an_image_that_can_not_be_inspected_keeps_the_engines_words():
    found, _ = checks(Docker(refusal="invalid reference format"), "A B")
    assert found["image"].text == "image A B can't be inspected: invalid reference format"


def image(labels: Mapping[str, str], asked: str | None = "i", **options):
    found, torch = checks(
        Docker(GPU_INFO, {"i": labels, "lora-harness:cpu": labels}), asked, **options
    )
    return found["image"], torch


def test_an_images_versions_are_its_labels():
    check, _ = image(LABELS)
    assert (check.word, check.text) == (
        "ok",
        "i: variant cpu, harness 0.9, trl 1.16.0, torch 2.13.0",
    )
    assert check.value["labels"]["io.lora-harness.trl"] == "1.16.0"
    assert "notOursToShow" not in str(check.as_dict())


def test_an_image_of_another_harness_is_a_problem_if_it_was_asked_for():
    check, _ = image(LABELS, version="1.0")
    assert check.word == "problem"
    assert "harness 0.9" in check.text
    assert "this harness is 1.0, and a study needs one version" in check.text
    assert image(LABELS, None, version="1.0")[0].word == "note"


def test_an_image_that_tells_no_version_is_not_refused():
    bare = {"io.lora-harness.variant": "cpu", "org.opencontainers.image.version": ""}
    check, _ = image(bare)
    assert (check.word, check.text) == ("ok", "i: variant cpu, its labels tell no version")


def test_the_cpu_image_is_refused_for_a_gpu_matrix():
    check, _ = image(LABELS, matrix="blog")
    assert (check.word, check.advice) == ("problem", "use the CUDA image")


@pytest.mark.parametrize("labels", [{}, {"maintainer": "me"}])
def test_an_image_that_is_not_ours_is_noted(labels):
    check, torch = image(labels)
    assert (check.word, torch) == ("note", None)
    assert "no labels of the harness" in check.text
    assert "docker run --rm i env" in check.advice


@pytest.mark.parametrize(
    ("labels", "cuda"),
    [
        ({"io.lora-harness.torch": "2.13.0+cu130"}, "13.0"),
        ({"org.opencontainers.image.base.name": "nvidia/cuda:12.8.1-base-ubuntu24.04"}, "12.8"),
    ],
)
def test_the_images_cuda_is_what_the_driver_has_to_run(labels, cuda):
    _, torch = image({"io.lora-harness.variant": "cuda", **labels}, matrix="blog")
    assert (torch.whose, torch.cuda) == ("the image's torch", cuda)


def test_an_image_without_a_word_on_cuda_is_not_judged():
    assert image({"io.lora-harness.variant": "cuda"}, matrix="blog")[1] is None
    assert image(LABELS)[1] == Torch("the image's torch", "2.13.0", None)


def test_the_command_is_run_and_its_answer_kept(tmp_path: Path, monkeypatch):
    script = tmp_path / "docker"
    script.write_text('#!/bin/sh\necho "out $*"; echo err >&2; exit 3\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_docker(["info"]) == Answer(3, "out info\n", "err\n")
    script.write_text("#!/nowhere\n")
    assert ask_docker(["info"]).code == 127
    script.unlink()
    assert ask_docker(["info"]) is None


def test_a_command_that_hangs_is_ended(tmp_path: Path, monkeypatch):
    script = tmp_path / "docker"
    script.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("harness.doctor_engine.ANSWER_S", 0.1)
    assert ask_docker(["info"]) == Answer(None)
