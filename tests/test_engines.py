"""An engine that is not here is found before anything trains."""

from __future__ import annotations

import sys
import sysconfig
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.bench import bench
from harness.engines import engine_problems, require_engines, server_url
from harness.errors import MachineError
from harness.launch.local import LocalLauncher
from harness.matrix import expand, parse_matrix
from harness.plan import Request
from harness.progress import Quiet
from tests.conftest import MATRIX
from tests.fake_worker import COMMAND

WITH_VLLM = MATRIX.replace(
    "lora-r1: {method: lora, lora: {r: 1}, trainer: {learning_rate: 1e-3}}",
    "lora-r1: {method: lora, lora: {r: 1}, trainer: {learning_rate: 1e-3, use_vllm: true}}",
).replace(
    "    reward: reasoning_accuracy",
    "    reward: reasoning_accuracy\n    declared_differences: [learning_rate, use_vllm]",
)


@pytest.fixture
def without_vllm(monkeypatch, tmp_path):
    """The standard library and an empty folder to import from, whatever is installed here."""
    specs()  # TRL's arguments are read once a process: before it is out of sight
    own = [p for p in sys.path if p.startswith(sysconfig.get_path("stdlib")) and "site-" not in p]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *own])
    return tmp_path


@pytest.fixture
def with_vllm(without_vllm):
    """A package of that name: found without being imported."""
    package = without_vllm / "vllm"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")


def specs(**trainer):
    runs = expand(parse_matrix(WITH_VLLM, "m"))
    return [s.model_copy(update={"trainer": {**s.trainer, **trainer}}) for s in runs]


def test_runs_that_sample_with_transformers_need_nothing(without_vllm):
    assert engine_problems(expand(parse_matrix(MATRIX, "m"))) == []
    assert engine_problems(specs(use_vllm=False)) == []


def test_trackio_that_is_not_installed_is_found_before_anything_trains(without_vllm, monkeypatch):
    monkeypatch.delitem(sys.modules, "trackio", raising=False)  # TRL may have imported it
    asking = [
        s.model_copy(update={"trainer": {"report_to": to}})
        for s, to in zip(specs(), ("trackio", ["trackio"], "none"), strict=False)
    ]
    (problem,) = engine_problems(asking)
    assert "report_to=none" in problem


def test_vllm_that_is_not_installed_is_one_sentence_with_what_to_do(without_vllm):
    (problem,) = engine_problems(specs())
    assert problem.startswith("grpo-micro.lora-r1 asks for use_vllm: true")
    assert "make vllm-env" in problem
    assert "--set use_vllm=false" in problem


def test_a_folder_named_vllm_is_no_vllm(without_vllm):
    (without_vllm / "vllm").mkdir()
    assert len(engine_problems(specs())) == 1


def test_an_installed_vllm_is_found_without_being_imported(with_vllm):
    assert engine_problems(specs(vllm_mode="colocate")) == []


class Health(BaseHTTPRequestHandler):
    """Answers GET /health with the server's own status."""

    def do_GET(self):
        self.send_response(self.server.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as it:
        it.status = 200
        thread = threading.Thread(target=it.serve_forever)
        thread.start()
        yield it
        it.shutdown()
        thread.join()


def test_a_server_that_is_up_is_no_problem(with_vllm, server):
    host, port = server.server_address
    at = {"vllm_server_host": host, "vllm_server_port": port}
    assert engine_problems(specs(vllm_mode="server", **at)) == []
    url = f"http://{host}:{port}/"
    assert engine_problems(specs(vllm_mode="server", vllm_server_base_url=url)) == []


def test_a_server_that_is_another_or_none_is_named_once_with_what_to_do(with_vllm, server):
    host, port = server.server_address
    server.status = 404
    url = f"http://{host}:{port}"
    (problem,) = engine_problems(specs(vllm_mode="server", vllm_server_base_url=url))
    assert f"grpo-micro.lora-r1 asks for the vLLM server at {url}" in problem
    assert "GET /health gave 404" in problem
    (problem,) = engine_problems(specs(vllm_mode="server", vllm_server_port=9))
    assert "nothing answers there" in problem
    assert "vllm serve" in problem
    assert "vllm_mode: colocate" in problem


@pytest.mark.parametrize("url", ["file:///etc", "localhost:8000"])
def test_an_address_that_is_not_http_is_not_opened(with_vllm, url):
    (problem,) = engine_problems(specs(vllm_mode="server", vllm_server_base_url=url))
    assert "that is no http address" in problem


def test_the_address_is_where_trl_looks():
    assert server_url({}) == "http://0.0.0.0:8000"
    assert server_url({"vllm_server_base_url": None, "vllm_server_port": 1}).endswith(":1")
    assert (
        server_url({"vllm_server_base_url": "http://a:2/", "vllm_server_port": 1}) == "http://a:2"
    )


def test_bench_refuses_before_anything_trains(without_vllm):
    matrix = without_vllm / "m.yaml"
    matrix.write_text(WITH_VLLM)
    request = Request(matrix=str(matrix), output_dir=without_vllm / "study")
    with pytest.raises(MachineError, match="vLLM is not installed") as refused:
        bench(request, LocalLauncher(is_cold=True, command=COMMAND), Quiet())
    assert refused.value.exit_code == 7
    assert list((without_vllm / "study" / "runs").iterdir()) == []
    with pytest.raises(MachineError):
        require_engines(specs())
