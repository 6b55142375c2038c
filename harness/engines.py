"""Whether what a run wants beside TRL is here: vLLM installed, a vLLM server up, trackio installed.

Found before any training starts, and without importing vLLM, which takes seconds. What this leaves
out: starting and describing an engine, which is the worker's (`worker/generation`).
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from harness.errors import MachineError
from harness.installed import Installed, is_importable
from harness.spec import RunSpec

ANSWER_S = 5.0
GENERATED = ("gsm_symbolic", "chain_sum")  # datasets that the package reasoning-gym makes
# TRL's GRPOConfig, where a matrix names no server.
_DEFAULT_HOST, _DEFAULT_PORT = "0.0.0.0", 8000  # noqa: S104 - where TRL looks, not where we listen


def require_engines(specs: Sequence[RunSpec], installed: Installed | None = None) -> None:
    """Refuse runs whose engine is not here, or in the environment that has what is `installed`.

    Raises: MachineError naming every pair's arm that can't sample, and what to do.
    """
    problems = engine_problems(specs, installed)
    if problems:
        raise MachineError("\n".join(problems))


def image_problems(specs: Sequence[RunSpec], installed: Collection[str], image: str) -> list[str]:
    """List what the runs need and an image lacks, one sentence each; nothing outside it can be reached."""
    problems = []
    for package, wanting in (
        ("trackio", [s for s in specs if "trackio" in _list(s.trainer.get("report_to"))]),
        ("vllm", [s for s in specs if _samples_by_vllm(s)]),
        ("deepspeed", [s for s in specs if s.parallel and s.parallel.strategy == "zero3"]),
        ("reasoning-gym", [s for s in specs if s.dataset.name in GENERATED]),
    ):
        if wanting and package not in installed:
            problems.append(
                f"{_arms(wanting)} needs {package}, and image {image} has none: build one with it, or "
                "run a matrix without"
            )
    served = [s for s in specs if s.trainer.get("vllm_mode") == "server" and _samples_by_vllm(s)]
    if served:
        problems.append(
            f"{_arms(served)} asks for a vLLM server, and runs of --launcher docker have no network; set "
            "vllm_mode: colocate, or leave --launcher docker out"
        )
    return problems


def engine_problems(specs: Sequence[RunSpec], installed: Installed | None = None) -> list[str]:
    """List what the runs need to sample or to log and don't find, one sentence each.

    `installed` is what their environment has; None stands for this installation.
    """

    def has(package: str) -> bool:
        return is_importable(package) if installed is None else package in installed.importable

    logging = [s for s in specs if "trackio" in _list(s.trainer.get("report_to"))]
    lost = []
    if logging and not has("trackio"):
        where = (
            "is not installed beside this harness; `pip install trackio`, or"
            if installed is None
            else "can't be had in their environment;"
        )
        lost.append(
            f"{_arms(logging)} asks for report_to: trackio, and trackio {where} leave it out with "
            "--set report_to=none"
        )
    wanting = [s for s in specs if _samples_by_vllm(s)]
    if not wanting:
        return lost
    if not has("vllm"):
        return [
            *lost,
            f"{_arms(wanting)} asks for use_vllm: true, and vLLM is not installed beside "
            "this harness; run `make vllm-env` and use .venv-vllm/bin/harness (on a GPU: pip install "
            "vllm at a version that the installed TRL takes), or drop it with --set use_vllm=false",
        ]
    problems = lost
    served = [s for s in wanting if s.trainer.get("vllm_mode") == "server"]
    for url in dict.fromkeys(server_url(s.trainer) for s in served):
        found = _health(url)
        if found is not None:
            asking = [s for s in served if server_url(s.trainer) == url]
            problems.append(
                f"{_arms(asking)} asks for the vLLM server at {url}, and {found}; start it with "
                "`VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config "
                '\'{"backend": "nccl"}\' --logprobs-mode processed_logprobs`, name another with '
                "vllm_server_base_url, or set vllm_mode: colocate"
            )
    return problems


def server_url(arguments: Mapping[str, Any]) -> str:
    """Return the address at which TRL looks for the server of a run."""
    given = arguments.get("vllm_server_base_url")
    if given:
        return str(given).rstrip("/")
    host = arguments.get("vllm_server_host", _DEFAULT_HOST)
    return f"http://{host}:{arguments.get('vllm_server_port', _DEFAULT_PORT)}"


def _samples_by_vllm(spec: RunSpec) -> bool:
    return spec.trainer.get("use_vllm") is True


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _health(url: str) -> str | None:
    """Ask a server how it is, as TRL does; return what is wrong, None if nothing."""
    if not url.startswith(("http://", "https://")):
        return "that is no http address"
    try:
        with urllib.request.build_opener().open(f"{url}/health", timeout=ANSWER_S):
            return None
    except urllib.error.HTTPError as error:
        return f"what answers there is no vLLM server that is up (GET /health gave {error.code})"
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        return f"nothing answers there ({why})"


def _arms(specs: Sequence[RunSpec]) -> str:
    return ", ".join(dict.fromkeys(f"{s.pair}.{s.arm}" for s in specs))
