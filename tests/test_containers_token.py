"""A token reaches the code that needs it and stands nowhere else, and an image holds no left-overs."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.containers.archive import Saved, read_image
from tests.containers.boxes import Compose, fresh_name, give, me, short
from tests.containers.fixtures import CANARY
from tests.containers.prepare import Ready

pytestmark = pytest.mark.docker

USER = "4242:4242"
HASH = (
    "import hashlib, huggingface_hub as h;"
    "print(hashlib.sha256((h.get_token() or '').encode()).hexdigest())"
)
SURE = "Apache License"  # stands in a layer: the search would find what is there
LEFT_OVERS = (
    r"(^|/)(\.cache|\.netrc|\.git|\.env|pip\.conf|\.venv|wheels)(/|$)",
    r"^var/(lib/apt/lists|cache/apt)/.+",
    r"^(tmp|root|run|build|source|home)/.+",
    r"\.(whl|deb|crt)$",
    r"ca-certificates",
)


@pytest.fixture(scope="module")
def saved(ready: Ready) -> Saved:
    return read_image(ready.engine, ready.image, (CANARY, SURE))


@pytest.fixture
def token(tmp_path: Path, ready: Ready):
    """A file with a token that only the container's user may read."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    file = folder / "hf_token"
    file.write_text(CANARY + "\n")
    file.chmod(0o600)
    give(ready, folder, USER)
    yield file
    give(ready, folder, me())


def test_a_token_is_usable_inside_and_shows_nowhere(
    compose: Compose, ready: Ready, token: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN_FILE", str(token))
    monkeypatch.setenv("HF_TOKEN", CANARY)  # which compose must not pass on
    results = tmp_path / "results"
    results.mkdir()
    give(ready, results, USER)
    try:
        told = compose.run(
            "-c", HASH, results=results, user=USER, options=("--entrypoint", "python")
        )
        assert told.stdout.strip() == hashlib.sha256(CANARY.encode()).hexdigest(), told.stderr
        name = fresh_name("token")
        process = compose.start(name, *short(2), results=results, user=USER)
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
        engine = ready.engine
        shown = {
            "the run's output": output,
            "compose config": compose.call("--profile", "cpu", "config").stdout,
            "docker inspect of the container": engine.docker("inspect", name),
            "docker logs": engine.docker("logs", name),
            "docker inspect of the image": engine.docker("image", "inspect", ready.image),
            "docker history": engine.docker("history", "--no-trunc", ready.image),
        }
    finally:
        give(ready, results, me())
    assert [where for where, text in shown.items() if CANARY in text] == []
    assert str(token) in shown["compose config"], "the search would not find what is there"
    files = [path for path in results.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_a_secret_file_that_is_not_there_is_named(compose: Compose, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN_FILE", str(tmp_path / "no-such-token"))
    done = compose.run("--version")
    assert done.returncode != 0
    assert "no-such-token" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_layer_holds_the_token_that_the_build_s_surroundings_had(saved: Saved):
    assert saved.found[SURE], "the search would not find what is there"
    assert saved.found[CANARY] == []


def test_the_layers_above_the_base_hold_nothing_of_the_build_machine(saved: Saved, ready: Ready):
    base = json.loads(ready.engine.docker("image", "inspect", ready.base))[0]
    below = len(base["RootFS"]["Layers"])
    assert 0 < below < len(saved.layers)
    own = [name for layer in saved.layers[below:] for name in saved.names[layer]]
    assert any(name.endswith("site-packages/trl/__init__.py") for name in own)
    patterns = [re.compile(pattern) for pattern in LEFT_OVERS]
    assert [name for name in own if any(p.search(name) for p in patterns)] == []


def test_the_image_adds_no_variable_of_the_build_machine(ready: Ready):
    def variables(image: str) -> dict[str, str]:
        found = json.loads(ready.engine.docker("image", "inspect", image))[0]["Config"]["Env"]
        return dict(entry.split("=", 1) for entry in found)

    base = variables(ready.base)
    own = {k: v for k, v in variables(ready.image).items() if base.get(k) != v}
    assert "HF_HOME" in own
    assert [
        name
        for name in own
        if re.search(r"PROXY|^PIP_|SSL|CERT|CA_BUNDLE|TOKEN$|KEY", name.upper())
    ] == []
    history = ready.engine.docker(
        "history", "--no-trunc", "--format", "{{.CreatedBy}}", ready.image
    )
    assert "proxy" not in history.lower()
