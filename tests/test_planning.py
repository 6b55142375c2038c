"""`harness plan` as a person types it, on a machine without a GPU, a token or a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import cli
from harness.errors import ConfigError
from harness.planning import parse_money
from harness.rates import SHIPPED
from tests.conftest import MATRIX as TINY
from tests.plan_matrix import MATRIX


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run `harness plan` in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "eight.yaml").write_text(MATRIX)
    (tmp_path / "tiny.yaml").write_text(TINY)

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.run(("plan", *words))
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def lines_of(out: str, line: str) -> list[dict]:
    return [d for d in map(json.loads, out.splitlines()) if d["line"] == line]


def test_a_plan_needs_no_gpu_and_leaves_no_file(typed, tmp_path):
    code, out, err = typed("-m", "eight.yaml")
    assert (code, err) == (0, "")
    assert "no GPU here" in out
    assert "does not fit one 80 GB GPU" in out
    assert "fits one 80 GB GPU" in out
    assert {p.name for p in tmp_path.iterdir()} == {"eight.yaml", "tiny.yaml"}


def test_json_adds_up(typed):
    code, out, _ = typed("-m", "eight.yaml", "--json")
    assert code == 0
    arms, (total,) = lines_of(out, "arm"), lines_of(out, "total")
    for arm in arms:
        assert arm["memory_bytes"] == sum(t["bytes"] for t in arm["memory"]["terms"])
    assert total["runs"] == sum(arm["runs"] for arm in arms) == 10
    assert total["usd"] == pytest.approx(sum(arm["usd_all_runs"] for arm in arms))
    assert total["download_bytes"] is None  # datasets of unknown size
    assert total["known_download_bytes"] == 2 * (8_030_261_248 + 8_190_735_360)
    assert len(lines_of(out, "repository")) == 4


def test_options_choose_runs_and_arguments(typed):
    _, out, _ = typed(
        *("-m", "eight.yaml", "--filter", "*.lora-r1.*", "--seeds", "0-4", "--json"),
        *("--set", "vllm_gpu_memory_utilization=0.25"),
    )
    (arm,) = lines_of(out, "arm")
    assert arm["runs"] == 5
    pool = next(t for t in arm["memory"]["terms"] if t["name"] == "vLLM pool")
    assert pool["note"].startswith("25%")


def test_money_is_a_budget(typed):
    code, out, _ = typed("-m", "eight.yaml", "--budget", "$3", "--json")
    (total,) = lines_of(out, "total")
    assert code == 0
    assert total["budget"]["limit_usd"] == 3
    assert total["budget"]["spent_usd"] <= 3
    assert "pay for the first" in typed("-m", "eight.yaml", "--budget", "50 USD")[1]


def test_another_gpu_decides_otherwise(typed):
    _, out, _ = typed("-m", "eight.yaml", "--gpu", "L40S 48GB", "--json")
    arms = {(a["pair"], a["arm"]): a for a in lines_of(out, "arm")}
    assert arms["grpo-8b", "lora-r1"]["fits"] is False
    assert "no GPU here" not in out


def test_a_card_of_one_s_own_replaces_the_shipped(typed):
    text = SHIPPED.read_text(encoding="utf-8").replace("value: 3.0", "value: 30.0")
    Path("mine.yaml").write_text(text)
    (mine,) = lines_of(typed("-m", "eight.yaml", "--rate-card", "mine.yaml", "--json")[1], "total")
    (shipped,) = lines_of(typed("-m", "eight.yaml", "--json")[1], "total")
    assert mine["usd"] == pytest.approx(10 * shipped["usd"])


@pytest.mark.parametrize("matrix", ["tiny.yaml", "cpu", "smollm2"])
def test_shapes_outside_the_catalog_are_unknown(typed, matrix):
    code, out, _ = typed("-m", matrix, "--json")
    (total,) = lines_of(out, "total")
    assert code == 0
    assert total["usd"] is None
    assert {arm["memory"] for arm in lines_of(out, "arm")} == {None}
    assert "shape not in the catalog: memory unknown" in typed("-m", matrix)[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-m", "eigth"], "is unknown"),
        (["-m", "eight.yaml", "--set", "learning_rat=1"], "did you mean 'learning_rate'"),
        (["-m", "eight.yaml", "--filter", "lora-r11"], "did you mean 'lora-r1'"),
        (["-m", "eight.yaml", "--seeds", "1,1"], "distinct seeds"),
        (["-m", "eight.yaml", "--budget", "50eur"], "amount in US dollars such as 50usd"),
        (["-m", "eight.yaml", "--gpu", "H100"], "not on the rate card"),
        (["-m", "eight.yaml", "--rate-card", "none.yaml"], "can't be read"),
        (["-m", "eight.yaml", "--rate-card", "tiny.yaml"], "is no key of a rate card"),
    ],
)
def test_bad_input_exits_2_and_says_what_to_do(typed, words, expected):
    code, out, err = typed(*words)
    assert (code, out) == (2, "")
    assert expected in err


@pytest.mark.parametrize("text", ["50usd", "50 USD", "$50", "$50 usd", "50.0usd"])
def test_amounts_of_money_are_read(text):
    assert parse_money(text) == 50


@pytest.mark.parametrize("text", [None, "short", "standard", "full", "shrot"])
def test_names_are_no_money(text):
    assert parse_money(text) is None


@pytest.mark.parametrize("text", ["50", "50eur", "€50", "$50 eur", "-5usd", "1e9usd"])
def test_other_amounts_are_refused(text):
    with pytest.raises(ConfigError, match="such as 50usd"):
        parse_money(text)
