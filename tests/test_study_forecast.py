"""What a study keeps of its forecast: of arms that trained, made once, and a problem where it is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import NewerFormatError, StudyError
from harness.export import data_json
from harness.forecasts import FILE, ArmMemory, read_forecasts, write_forecasts
from harness.matrix import margins_hash, matrix_hash, parse_matrix
from harness.progress import Event, Quiet
from harness.record import PlannedRun, Record, Status, Study
from harness.report import render_report
from harness.rounds import forecast_study
from harness.settings import Model
from harness.spec import Matrix, RunSpec
from harness.store import Store
from harness.study_forecast import keep_forecasts, trained_arms
from harness.view import load_view
from tests.study_factory import Plan, build_study
from tests.test_scorecard import estimate, forecasts

UTC = "2026-01-02T03:04:05Z"
TEXT = """\
format: 1
name: tiny
title: A test
description: A test.
scale: embedded
device: cpu
seeds: [0]
pairs:
  sft-micro:
    task: sft
    model: {source: "embedded:micro-llama"}
    dataset: {name: micro-steps, train_rows: 64, validation_rows: 8, test_rows: 8, seed: 0}
    trainer: {max_steps: 2, max_length: 64, per_device_train_batch_size: 4, bf16: false}
    margin: 1.0
    margin_reason: a test
    arms:
      full: {method: full, trainer: {learning_rate: 1e-4}}
"""


class Listener(Quiet):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[Event] = []

    def emit(self, event: Event) -> None:
        self.said.append(event)


def make_store(
    folder: Path, text: str = TEXT, device: str = "cpu", source: str | None = None
) -> Store:
    """A study of one arm on disk, one of whose runs ended ok on a device."""
    store = Store(folder / "study")
    store.prepare()
    matrix = parse_matrix(text, "tiny.yaml")
    made = build_study(Plan(arms=1, seeds=(0,))).runs[0]
    pair = matrix.pairs["sft-micro"]
    model = pair.model if source is None else Model(source=source)
    spec = RunSpec(
        pair="sft-micro",
        arm="full",
        seed=0,
        task="sft",
        method="full",
        model=model,
        dataset=pair.dataset,
        reward=None,
        lora=None,
        trainer={**pair.trainer, "learning_rate": 1e-4},
        evaluation=pair.evaluation,
    )
    store.write_study(
        Study(
            matrix_name="tiny",
            matrix_text=text,
            matrix_hash=matrix_hash(matrix, {}),
            margins_hash=margins_hash(matrix),
            planned=(PlannedRun(run_id=spec.run_id, pair="sft-micro", arm="full", seed=0),),
            created_utc=UTC,
            harness_version="0.1.0",
            command="harness bench --matrix tiny",
        )
    )
    store.write_spec(spec)
    store.new_attempt(spec.run_id)
    assert made.record is not None
    assert made.record.result is not None
    result = made.record.result.model_copy(update={"device": device})
    record: Record = made.record.model_copy(update={"run_id": spec.run_id, "result": result})
    store.seal(record)
    return store


def matrix_of(store: Store) -> Matrix:
    return load_view(store).matrix


def test_an_arm_is_forecast_on_what_it_trained_on(tmp_path):
    arms = trained_arms(make_store(tmp_path))
    assert {key: (arm.device, arm.kind) for key, arm in arms.items()} == {
        ("sft-micro", "full", "cpu"): ("cpu", "cpu")
    }


def test_a_gpu_is_taken_by_its_uuid_with_the_size_that_was_recorded(tmp_path):
    store = make_store(tmp_path, device="GPU-b")
    attempt = store.run_dir(store.read_study().planned[0].run_id) / "attempt-1"
    gpus = [
        {"uuid": "GPU-a", "name": "NVIDIA L40S", "total_bytes": 48 << 30},
        {"uuid": "GPU-b", "name": "NVIDIA H100 80GB HBM3", "total_bytes": 80 << 30},
    ]
    store.write_json(attempt / "environment.json", {"gpus": gpus})
    (arm,) = trained_arms(store).values()
    assert (arm.device, arm.gpu_bytes, arm.kind) == ("NVIDIA H100 80GB HBM3", 80 << 30, "cuda")
    store.write_json(attempt / "environment.json", {"gpus": []})
    assert trained_arms(store) == {}


def add_run(
    store: Store, seed: int, change: Callable[[Record], Record], gpu: dict[str, Any]
) -> None:
    """A second run of the same arm, on a machine with that GPU."""
    study = store.read_study()
    spec = store.read_spec(study.planned[0].run_id)
    record = store.read_record(study.planned[0].run_id)
    assert spec is not None
    assert record is not None
    spec = spec.model_copy(update={"seed": seed})
    planned = PlannedRun(run_id=spec.run_id, pair="sft-micro", arm="full", seed=seed)
    store.write_study(study.model_copy(update={"planned": (*study.planned, planned)}))
    store.write_spec(spec)
    attempt = store.new_attempt(spec.run_id)
    store.write_json(attempt / "environment.json", {"gpus": [gpu]})
    store.seal(change(record.model_copy(update={"run_id": spec.run_id})))


def test_an_arm_is_forecast_once_for_each_kind_of_device_that_its_runs_ran_on(tmp_path):
    def ran_on(uuid):
        def change(record):
            result = record.result.model_copy(update={"device": uuid})
            return record.model_copy(update={"result": result})

        return change

    def was_full(record):  # an exception leaves no device in the result
        sampler = record.sampler.model_copy(update={"gpus": ("GPU-full",)})
        return ran_on(None)(record).model_copy(
            update={"status": Status.OOM_GPU, "sampler": sampler}
        )

    store = make_store(tmp_path)
    gpu = {"name": "NVIDIA L40S", "total_bytes": 45 << 30}
    add_run(store, 1, ran_on("GPU-a"), {**gpu, "uuid": "GPU-a"})
    add_run(store, 2, ran_on("GPU-b"), {**gpu, "uuid": "GPU-b"})
    small = {"name": "NVIDIA A10G", "total_bytes": 22 << 30, "uuid": "GPU-full"}
    add_run(store, 3, was_full, small)
    assert {key[2]: arm.gpu_bytes for key, arm in trained_arms(store).items()} == {
        "cpu": 0,
        "NVIDIA L40S": 45 << 30,
        "NVIDIA A10G": 22 << 30,
    }


def test_a_newer_forecast_is_never_replaced_and_a_damaged_one_is_when_made_anew(tmp_path):
    store = make_store(tmp_path, source="somebody/model")
    (store.root / FILE).write_text('{"format": 99}')
    with pytest.raises(NewerFormatError):
        keep_forecasts(store, matrix_of(store), is_anew=True)
    assert (store.root / FILE).read_text() == '{"format": 99}'
    (store.root / FILE).write_text("{")
    made = keep_forecasts(store, matrix_of(store), is_anew=True)
    assert read_forecasts(store) == (made,)


def test_an_arm_without_a_known_shape_is_kept_with_the_reason(tmp_path):
    store = make_store(tmp_path, source="somebody/model")
    made = keep_forecasts(store, matrix_of(store))
    assert made is not None
    (arm,) = made.arms
    assert (arm.forecast, arm.why) == (None, "its shape is not in the catalog")
    assert read_forecasts(store) == (made,)
    assert load_view(store).forecasts == made


def test_what_was_kept_is_not_made_again(tmp_path):
    store = make_store(tmp_path)
    kept = forecasts({("sft-micro", "full"): (estimate("rss", 80),)})
    write_forecasts(store, kept)
    asked: list[int] = []
    assert keep_forecasts(store, matrix_of(store), tell=asked.append) == kept
    assert asked == []


@pytest.mark.parametrize(
    "change", [("scale: embedded", "scale: rehearsal"), ("pairs:", "replays: true\npairs:")]
)
def test_toys_and_probes_are_not_forecast(tmp_path, change):
    store = make_store(tmp_path, TEXT.replace(*change))
    assert keep_forecasts(store, matrix_of(store)) is None
    assert not (store.root / FILE).exists()


def test_what_is_no_longer_wanted_is_not_kept(tmp_path):
    store = make_store(tmp_path, source="somebody/model")
    assert keep_forecasts(store, matrix_of(store), is_wanted=lambda: False) is None
    assert not (store.root / FILE).exists()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{", StudyError),
        ('{"format": 99}', NewerFormatError),
        ("[]", StudyError),
        ("\x00", StudyError),
    ],
)
def test_a_forecast_that_cant_be_read_is_a_problem_of_the_study_and_no_more(
    tmp_path, content, error
):
    store = make_store(tmp_path)
    (store.root / FILE).write_text(content)
    with pytest.raises(error, match=FILE):
        read_forecasts(store)
    view = load_view(store)
    assert view.forecasts is None
    assert any(FILE in problem for problem in view.problems)
    listener = Listener()
    forecast_study(store, view.matrix, listener, lambda: True)
    assert [event.text.startswith("memory was not forecast: ") for event in listener.said] == [True]
    assert (store.root / FILE).read_text() == content


@pytest.mark.slow
def test_a_report_shows_the_scorecard_and_data_json_has_it():
    study = replace(
        build_study(Plan(arms=1, seeds=(0, 1))),
        forecasts=forecasts({("sft-micro", "full"): (estimate("rss", 80),)}),
    )
    files = render_report(study, generated_utc=UTC)
    page, markdown = files["index.html"].decode(), files["report.md"].decode()
    for said in ("Forecast scorecard of every run", "2 runs inside the interval"):
        assert said in page
        assert said in markdown
    assert "figures/forecast.svg" in files
    told = json.loads(files["data.json"])["forecast"]
    assert [row["cell"] for row in told["scorecard"]] == ["sft-micro.full.s0", "sft-micro.full.s1"]
    assert told["by_lens"][0]["runs"] == 2
    assert told["compared"]["compared"] == 2
    assert ArmMemory.model_validate(told["arms"][0], strict=False).arm == "full"


def test_without_a_forecast_data_json_has_null():
    study = build_study(Plan(arms=1, seeds=(0,)))
    assert json.loads(data_json(study, {}, UTC))["forecast"] is None


@pytest.mark.slow
def test_the_embedded_models_arm_is_traced_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    store = make_store(tmp_path)
    made = keep_forecasts(store, matrix_of(store))
    assert made is not None
    (arm,) = made.arms
    assert arm.why is None
    assert arm.forecast is not None
    assert [each.lens for each in arm.forecast.lenses] == ["rss"]
    assert sum(term.bytes for term in arm.forecast.terms) == arm.forecast.lenses[0].bytes
    assert made.libraries["trl"] is not None
