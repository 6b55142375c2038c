"""Docker: does its engine answer, can it give a container a GPU, is the image there and the right one?

Asked through the `docker` command, which every installation has; only labels of an image are read,
never its environment. What this leaves out: running containers (`launch.docker`).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.doctor_check import Check, Word, word_if
from harness.doctor_driver import Torch
from harness.doctor_needs import Needs
from harness.pins import make_command
from harness.stacks import default_image
from harness.text import clean

ANSWER_S = 5.0
TITLES = "org.opencontainers.image."
OURS = "io.lora-harness."
# What the engine answers where it can't give a container a GPU, word for word.
NO_DRIVER = 'could not select device driver "nvidia" with capabilities: [[gpu]]'
_TOOLKIT = (
    "install the NVIDIA Container Toolkit on the host, run `nvidia-ctk runtime configure "
    "--runtime=docker` and restart Docker"
)
_HOOK = "nvidia-container-runtime-hook"  # what the engine itself looks for when it starts


@dataclass(frozen=True)
class Answer:
    """What the `docker` command said; `code` None: nothing within the time."""

    code: int | None
    out: str = ""
    err: str = ""


Ask = Callable[[Sequence[str]], Answer | None]  # None: there is no such command


def ask_docker(arguments: Sequence[str]) -> Answer | None:
    """Run the `docker` command."""
    docker = shutil.which("docker")
    if docker is None:
        return None
    try:
        done = subprocess.run(
            [docker, *arguments], capture_output=True, timeout=ANSWER_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Answer(None)
    except OSError as error:
        return Answer(127, err=error.strerror or "can't be run")
    return Answer(
        done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


def check_engine(
    needs: Needs,
    ask: Ask,
    asked_image: str | None,
    environ: Mapping[str, str],
    harness_version: str,
    has_hook: bool,
) -> tuple[list[Check], Torch | None]:
    """Look at the engine and the image; also returns what the image's torch is built for.

    Without an image asked for, lacks are notes: the harness runs without Docker. `has_hook` says
    whether NVIDIA's hook is on this machine's PATH.
    """
    answer = ask(["info", "--format", "{{json .}}"])
    grave = word_if(asked_image is not None)
    if answer is None:
        text = "no docker command: it is needed for containers alone"
        advice = "install Docker Engine" if asked_image else ""
        return [Check("docker", "engine", grave, text, advice)], None
    info = _parsed(answer.out)
    reason = _refusal(answer, info)
    if reason is not None:
        return [Check("docker", "engine", grave, *reason)], None
    version = str(info["ServerVersion"])
    gpu_way = _gpu_way(info, has_hook)
    value = {"version": version, "gpu": gpu_way}
    checks = [Check("docker", "engine", "ok", f"Docker {version} answers", value=value)]
    if needs.uses_gpu:
        checks.append(_gpu(gpu_way, grave))
    image = asked_image or _default_image(needs, environ)
    found, torch = _image(needs, ask, image, asked_image is not None, harness_version)
    return [*checks, *found], torch


def _refusal(answer: Answer, info: Mapping[str, Any]) -> tuple[str, str] | None:
    """Say what keeps the engine from answering, and what to do; None if it answers.

    An old client tells of it in its answer and exits 0, a new one on stderr with 1.
    """
    if answer.code is None:
        return f"the engine does not answer within {ANSWER_S:.0f} s", "`systemctl restart docker`"
    errors = info.get("ServerErrors") or []
    said = clean(" ".join([*map(str, errors), answer.err]), 300).strip()
    if answer.code == 0 and info.get("ServerVersion") and not errors:
        return None
    if "permission denied" in said.lower():
        return "this user may not talk to the engine", "join the group `docker`, or run as root"
    if "cannot connect" in said.lower() or "connection refused" in said.lower():
        return "no engine answers", "`systemctl start docker`, or look at DOCKER_HOST"
    return f"the engine does not answer: {said or 'not a word'}", "`docker info` says more"


def _gpu_way(info: Mapping[str, Any], has_hook: bool) -> str | None:
    """How the engine gives a container a GPU; None: it can't."""
    if "nvidia" in (info.get("Runtimes") or {}):
        return "the NVIDIA runtime"
    devices = info.get("DiscoveredDevices") or []
    if any(str(d.get("ID", "")).startswith("nvidia.com/gpu") for d in devices):
        return "CDI"
    return _HOOK if has_hook else None


def _gpu(way: str | None, grave: Word) -> Check:
    if way:
        return Check("docker", "gpu runtime", "ok", f"containers get GPUs by {way}")
    text = (
        "the engine knows no NVIDIA runtime and no CDI device: a container that asks for a GPU ends with "
        f"`{NO_DRIVER}`"
    )
    return Check("docker", "gpu runtime", grave, text, _TOOLKIT)


def _default_image(needs: Needs, environ: Mapping[str, str]) -> str:
    """The image that docker-compose.yml and `bench --launcher docker` take unless told otherwise."""
    has_gpu = needs.uses_gpu
    named = environ.get("HARNESS_IMAGE" if has_gpu else "HARNESS_IMAGE_CPU")
    return named or default_image(has_gpu)


def _image(
    needs: Needs, ask: Ask, image: str, is_asked: bool, harness_version: str
) -> tuple[list[Check], Torch | None]:
    answer = ask(["image", "inspect", "--format", "{{json .}}", "--", image])
    grave = word_if(is_asked)
    data = _parsed(answer.out) if answer and answer.code == 0 else {}
    if answer is None or not data:
        said = clean(answer.err, 200) if answer else ""
        missing = not said or "no such image" in said.lower()
        text = f"no image {image}" if missing else f"image {image} can't be inspected: {said}"
        advice = _how_to_get(image, is_asked, needs)
        return [Check("docker", "image", grave, text, advice, {"image": image})], None
    labels = _labels(data)
    value = {"image": image, "id": data.get("Id"), "labels": labels}
    if not any(name.startswith(OURS) for name in labels):
        text = f"{image} has no labels of the harness: its versions are not known"
        advice = f"`docker run --rm {image} env` prints them if it is one of the harness's"
        return [Check("docker", "image", "note", text, advice, value)], None
    return _judge(needs, image, labels, grave, harness_version, value)


def _how_to_get(image: str, is_asked: bool, needs: Needs) -> str:
    """Say what makes a missing image.

    Compose builds the pinned TRL under any name: it is advised only where the name tells of no version.
    """
    command = make_command(image)
    if command:
        return f"{command} makes it"
    if is_asked:
        return "look for its name with `docker images`, or build it"
    return f"`docker compose build {'harness' if needs.uses_gpu else 'harness-cpu'}` makes it"


def _judge(
    needs: Needs,
    image: str,
    labels: Mapping[str, str],
    grave: Word,
    harness_version: str,
    value: Mapping[str, Any],
) -> tuple[list[Check], Torch | None]:
    variant, version = labels.get(f"{OURS}variant"), labels.get(f"{TITLES}version")
    packages = ("trl", "transformers", "peft", "torch", "vllm")
    shown = [f"harness {version}"] if version else []
    shown += [f"{p} {labels[OURS + p]}" for p in packages if labels.get(OURS + p)]
    text = f"{image}: variant {variant}, {', '.join(shown) or 'its labels tell no version'}"
    torch = _torch(labels, variant)
    rebuild = "build it again from this source, or name another with --image"
    if version and version != harness_version:
        text += f"; this harness is {harness_version}, and a study needs one version"
        return [Check("docker", "image", grave, text, rebuild, value)], torch
    if variant == "cpu" and needs.uses_gpu:
        text += f"; it is for the CPU, and matrix {needs.matrix.name!r} needs a GPU"
        return [Check("docker", "image", grave, text, "use the CUDA image", value)], torch
    return [Check("docker", "image", "ok", text, value=value)], torch


def _torch(labels: Mapping[str, str], variant: str | None) -> Torch | None:
    """What the image's torch is built for: its version says, or the CUDA image that it is made from."""
    version = labels.get(f"{OURS}torch")
    if variant == "cpu":
        return Torch("the image's torch", version, None)
    local = re.search(r"\+cu(\d+)(\d)$", version or "")
    base = re.search(r"cuda:(\d+)\.(\d+)", labels.get(f"{TITLES}base.name", ""))
    numbers = local or base
    return Torch("the image's torch", version, f"{numbers[1]}.{numbers[2]}") if numbers else None


def _labels(data: Mapping[str, Any]) -> dict[str, str]:
    """The labels that are ours to show; others may hold anything."""
    config = data.get("Config") or {}
    labels = config.get("Labels") or {}
    return {k: clean(v, 200) for k, v in labels.items() if k.startswith((OURS, TITLES))}


def _parsed(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
