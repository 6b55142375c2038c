"""Publishing to a real server: what goes, what is refused, and that a dry run contacts nobody."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.bench import bench
from harness.errors import ConfigError
from harness.launch.local import LocalLauncher
from harness.plan import Request
from harness.progress import Quiet
from harness.publish import prepare
from harness.sources import Repository, Sources, write_sources
from harness.store import Store
from tests.conftest import MATRIX
from tests.fake_worker import COMMAND
from tests.hub_server import READ_ONLY, TOKEN, Hub, running_hub


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one run with a report."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "tiny.yaml").write_text(MATRIX)
    request = Request(
        matrix=str(folder / "tiny.yaml"),
        output_dir=folder / "study",
        filters=("sft-micro.*.s0",),
        grace_s=1,
    )
    assert bench(request, LocalLauncher(is_cold=True, command=COMMAND), Quiet()).exit_code == 0
    entry = Repository(
        repository="acme/micro", kind="model", revision="main", folder=str(folder / "deep/micro")
    )
    write_sources(Store(folder / "study"), Sources(repositories=(entry,)))
    return folder / "study"


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "study"))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


def publish(
    hub: Hub, study: Path, *arguments: str, token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", "publish", str(study), "--to", "me/lora", *arguments],
        env=hub.environment(study.parent, token),
        cwd=study.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )


def keep_adapter(study: Path) -> str:
    """Leave an adapter as a worker would; returns the run's id."""
    run_id = next(p.name for p in (study / "runs").iterdir() if "lora" in p.name)
    folder = study / "runs" / run_id / "attempt-1/adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "acme/micro", "r": 4}')
    (folder / "adapter_model.safetensors").write_bytes(b"\x00" * 4096)
    return run_id


@pytest.mark.slow
def test_a_report_becomes_a_space_that_shows_it(hub, study):
    answer = publish(hub, study, "--private", "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["url"] == f"{hub.url}/spaces/me/lora"
    repo = hub.repos[("spaces", "me/lora")]
    assert repo.created["sdk"] == "static"
    assert repo.created["visibility"] == "private"
    files = repo.commits[-1]
    for name in ("index.html", "report.md", "brief.md", "data.json", "runs.csv"):
        assert files[name] == (study / "report" / name).read_bytes()
    assert files["study.json"] == (study / "study.json").read_bytes()
    figures = {f"figures/{p.name}" for p in (study / "report/figures").iterdir()}
    assert figures
    assert figures <= set(files)
    head = files["README.md"].decode().split("---")[1]
    assert "sdk: static" in head
    assert "app_file: index.html" in head
    # That a folder was mapped is told, where it lies is not.
    assert json.loads(files["sources.json"])["repositories"][0]["folder"] == "micro"
    assert TOKEN not in answer.stdout + answer.stderr
    again = publish(hub, study, "--type", "dataset")
    assert again.returncode == 0, again.stderr
    assert "sdk" not in hub.repos[("datasets", "me/lora")].created
    assert b"data_files: runs.csv" in hub.repos[("datasets", "me/lora")].commits[-1]["README.md"]


def test_a_dry_run_lists_it_all_and_contacts_nobody(hub, study):
    answer = publish(hub, study, "--dry-run", "--private", "--json", token=None)
    assert answer.returncode == 0, answer.stderr
    listed = json.loads(answer.stdout)
    assert listed["to"] == "me/lora"
    assert listed["type"] == "space"
    assert listed["private"] is True
    assert listed["files"]["runs.csv"] == (study / "report/runs.csv").stat().st_size
    assert listed["bytes"] == sum(listed["files"].values())
    assert hub.requests == []


@pytest.mark.slow
def test_without_a_token_or_with_one_that_may_not_write_it_says_how_to_get_one(hub, study):
    missing = publish(hub, study, token=None)
    assert missing.returncode == 7
    assert f"{hub.url}/settings/tokens" in missing.stderr
    assert hub.requests == []
    refused = publish(hub, study, token=READ_ONLY)
    assert refused.returncode == 7
    assert "answered 403: your token may not write to me/lora" in refused.stderr
    assert READ_ONLY not in refused.stderr
    assert hub.repos == {}


@pytest.mark.parametrize(
    ("leak", "what"),
    [
        ("see /home/ada/runs/x", "folder of this machine"),
        ("HF_TOKEN=hf_" + "Z9" * 17, "looks like a token"),
        ("https://me:pass@mirror.example/x", "looks like a token"),
    ],
)
def test_a_report_that_says_too_much_is_refused_by_file_and_line(study, leak, what):
    path = study / "report/report.md"
    path.write_text(path.read_text() + f"\n{leak}\n")
    with pytest.raises(ConfigError) as caught:
        prepare(study, "me/lora", "report")
    assert len(caught.value.problems) == 1
    assert f"report.md, line {len(path.read_text().splitlines())}: " in str(caught.value)
    assert what in str(caught.value)
    assert leak not in str(caught.value)


def test_the_folder_of_the_study_itself_is_found_too(study):
    path = study / "report/data.json"
    path.write_text(path.read_text().replace('"sentence": "', f'"sentence": "{study}/x '))
    with pytest.raises(ConfigError, match=r"data\.json, line \d+: names a folder"):
        prepare(study, "me/lora", "report")


def test_what_is_not_there_or_not_meant_is_refused(study):
    with pytest.raises(ConfigError, match="expected OWNER/NAME"):
        prepare(study, "lora", "report")
    with pytest.raises(ConfigError, match="expected model for --what adapters"):
        prepare(study, "me/lora", "adapters", "space")
    with pytest.raises(ConfigError, match="no saved adapter"):
        prepare(study, "me/lora", "adapters")
    (study / "report/index.html").unlink()
    with pytest.raises(ConfigError, match=r"no whole report \(index\.html missing\)"):
        prepare(study, "me/lora", "report")


@pytest.mark.slow
def test_adapters_go_with_a_card_that_says_what_they_are(hub, study):
    keep_adapter(study)
    answer = publish(hub, study, "--what", "adapters")
    assert answer.returncode == 0, answer.stderr
    files = hub.repos[("models", "me/lora")].commits[-1]
    assert set(files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    card = files["README.md"].decode()
    assert "sft-micro.lora.s0" in card
    assert "| 4 | 32 |" in card
    study_hash = json.loads((study / "study.json").read_text())["matrix_hash"]
    assert study_hash[:12] in card


def test_an_adapter_is_sealed_with_its_run(study):
    run_id = keep_adapter(study)
    store = Store(study)
    store.seal(store.read_record(run_id))
    assert "adapter/adapter_model.safetensors" in store.read_record(run_id).files
    path = study / "runs" / run_id / "attempt-1/adapter/adapter_model.safetensors"
    path.write_bytes(b"\x01" * 4096)
    assert store.verify(run_id) == [
        f"{run_id}/attempt-1/adapter/adapter_model.safetensors: was changed after it was sealed"
    ]
