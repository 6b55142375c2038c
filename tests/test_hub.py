"""Repositories from a real server: commits, caches, refusals. Every command is a process of its own,
because huggingface_hub reads its environment when it is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import MATRIX
from tests.hub_server import TOKEN, Hub, Repo, running_hub

MODEL, ROWS = "acme/micro", "openai/gsm8k"
ASSETS = Path(__file__).parent.parent / "harness/worker/assets/micro-llama"
# Two pairs on one model: one on a page's dataset, one on generated rows.
HUB_MATRIX = MATRIX.replace('"embedded:micro-llama"', MODEL, 1).replace(
    "{name: micro-steps,", f"{{name: {ROWS},"
)
PLAIN = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}"}
# Refuses every connection, to whatever address.
NO_NETWORK = (
    "import socket, sys\n"
    "def refuse(*_): raise AssertionError('the network was touched')\n"
    "socket.socket.connect = socket.socket.connect_ex = socket.create_connection = refuse\n"
    "socket.getaddrinfo = refuse\n"
    "from harness.cli import run\nsys.exit(run(sys.argv[1:]))"
)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        hub.add("model", MODEL, dict(PLAIN))
        hub.add("dataset", ROWS, {"README.md": b"#", "main/train.jsonl": b'{"question": "1"}\n'})
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(HUB_MATRIX)
    return tmp_path


def harness(
    hub: Hub,
    folder: Path,
    *arguments: str,
    token: str | None = None,
    code: str | None = None,
    **env,
) -> subprocess.CompletedProcess[str]:
    program = ["-c", code] if code else ["-m", "harness.cli"]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        env={**hub.environment(folder, token), **env},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def fetch(hub: Hub, folder: Path, *arguments: str, **how) -> subprocess.CompletedProcess[str]:
    return harness(hub, folder, "fetch", "--matrix", "tiny.yaml", *arguments, **how)


def lines(answer: subprocess.CompletedProcess[str]) -> dict[str, dict]:
    assert answer.returncode == 0, answer.stderr
    return {x["repository"]: x for x in map(json.loads, answer.stdout.splitlines())}


def test_fetch_brings_what_is_read_and_nothing_that_could_run(hub, folder):
    repo = hub.repos[("models", MODEL)]
    more = ("evil.py", "pytorch_model.bin", "original/consolidated.00.pth", "x.gguf")
    repo.commits[0] |= dict.fromkeys(more, b"no")
    hub.repos[("datasets", ROWS)].commits[0]["gsm8k.py"] = b"no"
    repo.commits[0]["config.json"] = b'{"auto_map": {"AutoModel": "evil.Model"}}'
    answer = fetch(hub, folder, "--json")
    assert f"model {MODEL} names Python code of its own (auto_map); it is not run" in answer.stderr
    found = lines(answer)
    assert found[MODEL]["commit"] == repo.head
    there = {p.name for p in Path(found[MODEL]["folder"]).iterdir()}
    assert there == set(PLAIN)
    rows = Path(found[ROWS]["folder"])
    assert sorted(p.name for p in rows.rglob("*") if p.is_file()) == ["README.md", "train.jsonl"]
    assert not any("evil" in r or ".bin" in r or "gsm8k.py" in r for r in hub.requests)
    assert not (folder / "results").exists()


@pytest.mark.slow
def test_offline_reads_the_cache_and_touches_no_network(hub, folder):
    online = lines(fetch(hub, folder, "--json"))
    hub.requests.clear()
    for how in ({}, {"HF_HUB_OFFLINE": "1"}):
        flag = () if how else ("--offline",)
        offline = lines(fetch(hub, folder, "--json", *flag, code=NO_NETWORK, **how))
        assert {k: v["commit"] for k, v in offline.items()} == {
            k: v["commit"] for k, v in online.items()
        }
    (Path(online[MODEL]["folder"]) / "model.safetensors").unlink()
    broken = fetch(hub, folder, "--offline", code=NO_NETWORK)
    assert broken.returncode == 7
    assert "harness fetch" in broken.stderr
    assert MODEL in broken.stderr
    assert ROWS not in broken.stderr
    assert hub.requests == []


@pytest.mark.slow
def test_a_download_that_broke_off_goes_on(hub, folder):
    content = b"w" * 3_000_000
    hub.repos[("models", MODEL)].commits[0]["model.safetensors"] = content
    hub.breaks_once = {"model.safetensors"}
    fetch(hub, folder)
    found = lines(fetch(hub, folder, "--json"))
    assert (Path(found[MODEL]["folder"]) / "model.safetensors").read_bytes() == content


@pytest.mark.slow
def test_every_refusal_is_said_at_once_with_the_steps(hub, folder):
    text = HUB_MATRIX.replace('"embedded:micro-llama"', "acme/gated", 1)
    text = text.replace("{name: micro-arithmetic,", "{name: zwhe99/DeepMath-103K, revision: v9,")
    (folder / "tiny.yaml").write_text(text)
    hub.add("model", "acme/gated", dict(PLAIN), is_gated=True, readers=set())
    hub.add("dataset", "zwhe99/DeepMath-103K", {"a.parquet": b"1"})
    del hub.repos[("datasets", ROWS)]
    hub.repos[("models", MODEL)].commits[0] = {"config.json": b"{}", "pytorch_model.bin": b"1"}
    answer = fetch(hub, folder, token=TOKEN)
    assert answer.returncode == 7
    said = answer.stderr
    assert "4 problems" in said
    assert (
        f"acme/gated is gated and the account of your token has no access: open {hub.url}/acme"
        in said
    )
    assert "hf auth login" in said
    assert f"dataset {ROWS} does not exist" in said
    assert "no revision 'v9'" in said
    assert "holds no .safetensors weights" in said
    assert TOKEN not in said
    assert answer.stdout == ""
    assert not any("/resolve/" in r for r in hub.requests if not r.startswith("HEAD"))


@pytest.mark.slow
def test_a_gated_repository_without_and_with_a_token_that_may(hub, folder):
    repo = hub.repos[("models", MODEL)]
    repo.is_gated, repo.readers = True, {TOKEN}
    refused = fetch(hub, folder)
    assert refused.returncode == 7
    assert "is gated and no token was found" in refused.stderr
    path = folder / "token"
    path.write_text(TOKEN)
    assert MODEL in lines(fetch(hub, folder, "--json", HF_TOKEN_PATH=str(path)))


@pytest.mark.slow
def test_a_token_that_is_not_valid(hub, folder):
    bad = "hf_" + "x" * 32
    answer = fetch(hub, folder, token=bad)
    assert answer.returncode == 7
    assert "your token is not valid (401)" in answer.stderr
    assert bad not in answer.stderr


@pytest.mark.slow
def test_a_folder_in_the_tokens_place_is_said_before_anything_is_asked(hub, folder):
    """Docker makes one where the file of a secret is missing."""
    secret = folder / "hf_token"
    secret.mkdir()
    answer = fetch(hub, folder, HF_TOKEN_PATH=str(secret))
    assert answer.returncode == 7
    assert f"HF_TOKEN_PATH names {secret}, which is a folder" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.slow
def test_no_network_offers_the_ways_without_one(folder):
    with running_hub() as hub:
        pass  # its port is closed now
    answer = fetch(hub, folder)
    assert answer.returncode == 7
    for word in (MODEL, ROWS, "--offline", "--map", "--rehearse", hub.url):
        assert word in answer.stderr
    assert answer.stderr.count("no answer") == 1


@pytest.mark.slow
def test_a_password_in_the_endpoint_is_never_shown(hub, folder):
    shown = hub.url.replace("://", "://me:secret@")
    answer = fetch(hub, folder, "--json", HF_ENDPOINT=shown)
    assert "secret" not in answer.stdout + answer.stderr
    assert lines(answer)[MODEL]["endpoint"] == hub.url


@pytest.mark.slow
def test_too_little_disk_is_seen_before_anything_is_downloaded(hub, folder):
    hub.repos[("models", MODEL)].claims["model.safetensors"] = 2**60
    answer = fetch(hub, folder)
    assert answer.returncode == 7
    assert "1,073,741,824.0 GiB are to be downloaded" in answer.stderr
    assert not any("/resolve/" in r for r in hub.requests)


@pytest.mark.slow
def test_a_matrix_of_embedded_models_asks_nobody_and_loads_no_client(hub, folder):
    (folder / "tiny.yaml").write_text(MATRIX)
    check = NO_NETWORK.replace(
        "sys.exit(run(sys.argv[1:]))",
        "code = run(sys.argv[1:]); sys.exit(code or ('huggingface_hub' in sys.modules) * 9)",
    )
    answer = fetch(hub, folder, code=check)
    assert answer.returncode == 0, answer.stderr
    assert "reads nothing from the Hub" in answer.stderr
    assert hub.requests == []


@pytest.mark.slow
def test_a_mapped_folder_takes_the_repositorys_place(hub, folder):
    own = folder / "own"
    own.mkdir()
    for name, content in PLAIN.items():
        (own / name).write_bytes(content)
    found = lines(fetch(hub, folder, "--json", "--map", f"{MODEL}={own}"))
    assert found[MODEL]["folder"] == str(own)
    assert found[MODEL]["commit"] is None
    assert not any(MODEL in r for r in hub.requests)
    wrong = fetch(hub, folder, "--map", f"acme/mikro={own}", "--map", f"{ROWS}={own}/nowhere")
    assert wrong.returncode == 2
    assert "did you mean 'acme/micro'?" in wrong.stderr
    assert "the folder does not exist" in wrong.stderr


BENCH = """
import os, sys
from pathlib import Path
from harness.errors import HarnessError
from harness.bench import bench
from harness.launch.local import LocalLauncher
from harness.plan import Request
from harness.progress import JsonLines
from tests.fake_worker import COMMAND
maps = dict(pair.split("=") for pair in sys.argv[2:])
request = Request(matrix="tiny.yaml", output_dir=Path("study"), filters=(sys.argv[1],), maps=maps,
                  renders_report=False)
preflight = (sys.executable, "-m", "tests.fake_preflight")
command = None if "REAL_WORKER" in os.environ else COMMAND
try:
    sys.exit(bench(request, LocalLauncher(is_cold=True, command=command), JsonLines(),
                   preflight).exit_code)
except HarnessError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def bench(
    hub: Hub, folder: Path, which: str, *maps: str, **how
) -> subprocess.CompletedProcess[str]:
    return harness(hub, folder, which, *maps, code=BENCH, **how)


def notes(answer: subprocess.CompletedProcess[str]) -> str:
    return "\n".join(e["text"] for e in map(json.loads, answer.stdout.splitlines()))


def launches(folder: Path) -> dict[str, dict]:
    found = folder.glob("study/runs/*/attempt-1/launch.json")
    return {p.parent.parent.name.rsplit("-", 1)[0]: json.loads(p.read_text()) for p in found}


@pytest.mark.slow
def test_a_study_keeps_its_commits_though_main_moves(hub, folder):
    repo: Repo = hub.repos[("models", MODEL)]
    begun = repo.head
    assert bench(hub, folder, "sft-micro.full.s0").returncode == 0
    sources = json.loads((folder / "study/sources.json").read_text())
    assert sources["endpoint"] == hub.url
    assert {r["repository"]: r["commit"] for r in sources["repositories"]}[MODEL] == begun
    first = launches(folder)["sft-micro.full.s0"]
    assert {s["repository"] for s in first["sources"]} == {MODEL, ROWS}
    assert begun in first["places"][MODEL]
    repo.commits.append({**PLAIN, "model.safetensors": b"others"})
    again = bench(hub, folder, "sft-micro.lora.s0")
    assert again.returncode == 0
    assert f"main is commit {repo.head[:12]} by now; the study keeps {begun[:12]}" in notes(again)
    assert begun in launches(folder)["sft-micro.lora.s0"]["places"][MODEL]
    # The cache was emptied: the same commit is fetched again, not what main is now.
    for path in (folder / "hf").rglob("*.safetensors"):
        path.unlink()
    assert bench(hub, folder, "sft-micro.lora.s1").returncode == 0
    assert begun in launches(folder)["sft-micro.lora.s1"]["places"][MODEL]
    hub.requests.clear()
    assert bench(hub, folder, "sft-micro.lora.s1").returncode == 0
    assert hub.requests == []  # all is done: nobody is asked


@pytest.mark.slow
def test_a_study_refuses_another_folder_and_a_changed_one(hub, folder):
    own, other = folder / "own", folder / "other"
    for place in (own, other):
        place.mkdir()
        for name, content in PLAIN.items():
            (place / name).write_bytes(content)
    assert bench(hub, folder, "sft-micro.full.s0", f"{MODEL}={own}").returncode == 0
    assert launches(folder)["sft-micro.full.s0"]["sources"][0]["is_mapped"]
    refused = bench(hub, folder, "sft-micro.full.s1", f"{MODEL}={other}")
    assert refused.returncode == 2
    assert f"began with {MODEL} at folder {own}" in refused.stderr
    refused = bench(hub, folder, "*.s1", f"{ROWS}={own}")
    assert refused.returncode == 2
    assert f"began with {ROWS} at commit" in refused.stderr
    (own / "model.safetensors").write_bytes(b"WEIGHTS")
    refused = bench(hub, folder, "sft-micro.full.s1")
    assert refused.returncode == 2
    assert "its files are not those that the study began with" in refused.stderr


@pytest.mark.slow
def test_nothing_is_trained_or_planned_before_access_is_certain(hub, folder):
    hub.repos[("models", MODEL)].is_gated = True
    refused = bench(hub, folder, "sft-micro")
    assert refused.returncode == 7
    assert not (folder / "study/study.json").exists()
    assert list(folder.glob("study/runs/*")) == []


@pytest.mark.slow
def test_what_the_preflight_finds_stops_the_study(hub, folder):
    refused = bench(hub, folder, "sft-micro", FAKE_PREFLIGHT="problem")
    assert refused.returncode == 2
    assert "column 'question' is missing" in refused.stderr
    assert bench(hub, folder, "grpo-micro.full.s0", FAKE_PREFLIGHT="crash").returncode == 0
    assert bench(hub, folder, "sft-micro", FAKE_PREFLIGHT="crash").returncode == 7


@pytest.mark.slow
def test_a_fetched_model_is_trained_and_its_adapter_kept_and_publishable(hub, folder):
    """The real worker, on a model that only the server has."""
    text = MATRIX.replace('"embedded:micro-llama"', MODEL, 1)
    text = text.replace("seeds:", "keeps_adapters: true\nseeds:", 1)
    (folder / "tiny.yaml").write_text(text.replace("max_steps: 3", "max_steps: 1"))
    repo = hub.add("model", MODEL, {p.name: p.read_bytes() for p in ASSETS.iterdir()})
    answer = bench(hub, folder, "sft-micro.lora.s0", REAL_WORKER="1", CUDA_VISIBLE_DEVICES="")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    # Fetched once by the supervisor; neither the worker nor PEFT's saving asked for anything more.
    assert sum("config.json" in r and r.startswith("GET") for r in hub.requests) == len(
        [n for n in repo.commits[0] if "config.json" in n]
    )
    assert {r.split("/")[1] for r in hub.requests} == {"api", MODEL.split("/")[0]}
    attempt = next(folder.glob("study/runs/*/attempt-1"))
    result = json.loads((attempt / "result.json").read_text())
    named = {"repository": MODEL, "kind": "model", "commit": repo.head, "is_mapped": False}
    assert result["sources"] == [named]
    assert "save" in (attempt / "phases.jsonl").read_text()
    adapter = attempt / "adapter"
    assert {p.name for p in adapter.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (MODEL, repo.head)
    weights = load_file(adapter / "adapter_model.safetensors")
    assert all("lora_" in name for name in weights)
    assert any(np.any(w) for name, w in weights.items() if "lora_B" in name)  # zero before training
    arguments = ("publish", "study", "--to", "me/adapter", "--what", "adapters")
    answer = harness(hub, folder, *arguments, token=TOKEN)
    assert answer.returncode == 0, answer.stderr
    files = hub.repos[("models", "me/adapter")].commits[-1]
    weights_file = adapter / "adapter_model.safetensors"
    assert files["adapter_model.safetensors"] == weights_file.read_bytes()
    card = files["README.md"].decode()
    assert f'base_model: ["{MODEL}"]' in card
    assert repo.head[:12] in card
