"""`harness plan` as a person types it, on a machine without a GPU, a token or a network."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from harness import cli
from harness.errors import ConfigError
from harness.measure.gpus import Gpu, GpuList
from harness.planning import look_around, parse_money
from harness.rates import SHIPPED
from tests.conftest import MATRIX as TINY
from tests.plan_matrix import CARD, MATRIX


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run `harness plan` in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "eight.yaml").write_text(MATRIX)
    (tmp_path / "tiny.yaml").write_text(TINY)

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.run(("plan", "--formulas", *words))
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
    assert "  by formulas: does not fit one 80 GB GPU" in out
    assert "  by formulas: fits one 80 GB GPU" in out
    assert "would not train here: too large for 1 × 80 GB, by formulas" in out
    assert "harness bench skips no run for its size" in " ".join(out.split())
    assert {p.name for p in tmp_path.iterdir()} == {"eight.yaml", "tiny.yaml"}


def test_the_printed_table_adds_up_to_its_printed_total(typed):
    _, out, _ = typed("-m", "eight.yaml")
    sums, terms = [], Decimal(0)
    for line in out.splitlines():
        found = re.match(r"  (\w[\w ]*?) +(\d+\.\d\d)  ", line)
        if found and found.group(1) == "total":
            sums.append(terms - Decimal(found.group(2)))
            terms = Decimal(0)
        elif found:
            terms += Decimal(found.group(2))
    assert sums == [0] * 5


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


@pytest.mark.parametrize("matrix", ["tiny.yaml", "cpu"])
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
        (["-m", "eight.yaml", "--budget", "short"], "has no budgets"),
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


def gpu(index: int, name: str, mebibytes: int | None) -> Gpu:
    return Gpu(
        index=index,
        uuid=f"GPU-{index}",
        name=name,
        total_bytes=None if mebibytes is None else mebibytes * 2**20,
        driver_version="590.1",
        cuda_driver_version="13.0",
        is_mig_enabled=False,
        mig_uuids=(),
        processes=(),
    )


def test_the_smallest_visible_gpu_of_the_machine_counts():
    found = GpuList((gpu(0, "NVIDIA A100-SXM4-80GB", 81920), gpu(1, "NVIDIA L40S", 46068)))
    ground, note = look_around(CARD, None, found, None)
    assert (ground.here, ground.memory_bytes, ground.size) == (2, 46068 * 2**20, "48 GB")
    assert ground.rates == CARD.gpus["L40S 48GB"]
    assert "2 × NVIDIA L40S" in note
    ground, _ = look_around(CARD, None, found, "0")
    assert (ground.here, ground.rates) == (1, CARD.gpus["A100 80GB"])
    _, note = look_around(CARD, None, found, "7")
    assert note.startswith(
        "no GPU here (CUDA_VISIBLE_DEVICES hides the 2 GPUs of this machine: it "
    )


def test_a_gpu_that_the_card_does_not_know_keeps_its_memory_and_borrows_speed():
    ground, note = look_around(CARD, None, GpuList((gpu(0, "Tesla T4", 15360),)), None)
    assert (ground.memory_bytes, ground.size) == (15360 * 2**20, "16 GB")
    assert "not on the rate card: speed and price of H100 80GB" in note


def test_a_gpu_asked_for_is_planned_for_whatever_is_here():
    here = GpuList((gpu(0, "Tesla T4", 15360),))
    ground, _ = look_around(CARD, "H200 141GB", here, None)
    assert (ground.name, ground.here) == ("H200 141GB", None)


def test_no_gpu_says_why():
    ground, note = look_around(CARD, None, GpuList((), "no NVML: a test"), None)
    assert (ground.name, ground.here) == ("H100 80GB", 0)
    assert note.startswith("no GPU here (no NVML: a test)")
