"""What SFT and GRPO share: opening a run, its trainer arguments, training it, closing it.

`set_seed` is called before the trainer is built: TRL wraps the model with LoRA in the constructor,
in some releases before it seeds, and then the adapter's initialisation would depend on whatever ran
before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import Trainer, set_seed

from harness.files import write_atomically
from harness.launch import Launch
from harness.record import EvaluationPoint, ParameterCounts, Result, Split, Status
from harness.spec import RunSpec
from harness.worker.adapters import save_adapter
from harness.worker.callbacks import EvaluateOnTheWay, StepJournal
from harness.worker.data import Splits, limited, load_splits
from harness.worker.journal import Journal
from harness.worker.left_out import keep_unusable, length_notes
from harness.worker.methods import match_precision
from harness.worker.models import Loaded, count_parameters, hash_trainable, load_model
from harness.worker.probe_checks import TRAINER_FOLDER, Make, Subject, checkpointing, run_checks
from harness.worker.probing import Recorder, uncounted
from harness.worker.progress import LISTED, Progress
from harness.worker.ranks import ALONE, Rank, rank_of
from harness.worker.trl_versions import build_config
from harness.worker.wrapping import CheckWrapping

T = TypeVar("T", bound=Trainer)

# A held-out NLL that much above the untrained model's, in nats, is called diverged.
DIVERGED_BY_NATS = 0.5


@dataclass(frozen=True)
class Session:
    """A run with its model and rows in memory."""

    spec: RunSpec
    launch: Launch
    attempt: Path
    journal: Journal
    progress: Progress
    loaded: Loaded
    splits: Splits
    rank: Rank = ALONE
    recorder: Recorder | None = None  # of a probed run

    @property
    def device(self) -> torch.device:
        """Where the run trains."""
        return torch.device("cuda" if self.launch.gpus else "cpu")


def open_session(spec: RunSpec, launch: Launch, attempt: Path, progress: Progress) -> Session:
    """Load what a run needs, as its first phase."""
    torch.set_num_threads(launch.threads)
    rank = rank_of(launch)
    read = (spec.model.source, spec.dataset.name)
    progress.sources = tuple(s for s in launch.sources if s.repository in read)
    if launch.parallel and launch.gpus:
        torch.cuda.set_device(rank.index)  # before the journal asks a GPU: not the first one's
    journal = Journal(attempt, is_cuda=bool(launch.gpus), is_silent=not rank.is_first)
    with journal.phase("load"):
        loaded = load_model(spec.model, launch.places)
        progress.notes += loaded.notes
        splits = load_splits(spec.task, limited(spec), launch.places, loaded.tokenizer)
    progress.notes += splits.notes
    progress.unusable = splits.unusable
    if rank.is_first:
        keep_unusable(attempt, splits.unusable)
    recorder = Recorder(spec.probe) if spec.probe else None
    return Session(spec, launch, attempt, journal, progress, loaded, splits, rank, recorder)


def configure(session: Session, config_class: type) -> Any:
    """Build TRL's config from the run's arguments, and keep what it took to do so for the record."""
    built = build_config(session.spec.task, config_class, trainer_arguments(session))
    session.progress.translations = built.translations
    session.progress.notes += built.notes
    return built.config


def trainer_arguments(session: Session) -> dict[str, Any]:
    """Return the arguments of TRL's config: the spec's, and the few that the harness itself sets."""
    spec, launch = session.spec, session.launch
    arguments: dict[str, Any] = {
        "dataloader_pin_memory": bool(launch.gpus),
        **spec.trainer,
        **checkpointing(spec),
        "output_dir": str(session.attempt / TRAINER_FOLDER),
        "seed": spec.training_seed,
        "use_cpu": not launch.gpus,
        "disable_tqdm": True,
    }
    if _logs_to_trackio(spec):
        study = session.attempt.parent.parent.parent.name
        arguments = {"project": study, "run_name": spec.cell, **arguments}
    return arguments


def build(session: Session, make: Callable[[], T]) -> T:
    """Build TRL's trainer, seeded, and write down every argument it resolved to."""
    with session.journal.phase("build"):
        set_seed(session.spec.training_seed)
        begin_cpu_s = time.process_time()
        trainer = make()
        if session.recorder is not None:
            session.recorder.see_built(trainer, time.process_time() - begin_cpu_s)
        if session.recorder is None or session.recorder.probing.adapter_precision == "model":
            match_precision(trainer, session.spec.model.dtype)
        session.progress.notes += length_notes(trainer, session.splits)
    if session.rank.is_first:
        write_atomically(
            session.attempt / "resolved_config.json",
            json.dumps(resolved_config(session, trainer), indent=1, default=str).encode(),
        )
    return trainer


def resolved_config(session: Session, trainer: Trainer) -> dict[str, Any]:
    """Every trainer argument after TRL's own defaults and changes, and what wraps the model."""
    arguments = trainer.args.to_dict()
    for name in (
        "output_dir",
        "logging_dir",
        "run_name",
        "project",
        "hub_token",
        "push_to_hub_token",
    ):
        arguments.pop(name, None)  # places and secrets, not settings
    adapter = getattr(trainer.model, "peft_config", None)
    return {
        "format": 1,
        "trainer": type(trainer).__name__,
        "arguments": arguments,
        "lora": {k: _plain(v.to_dict()) for k, v in adapter.items()} if adapter else None,
        # The base's alone, the same whether or not it is trained.
        "dtypes": sorted(
            {str(p.dtype) for n, p in trainer.model.named_parameters() if "lora_" not in n}
        ),
        "trainable_dtypes": sorted(
            {str(p.dtype) for p in trainer.model.parameters() if p.requires_grad}
        ),
        "device": session.device.type,
    }


def autocast(trainer: Trainer) -> torch.autocast:
    """Return the precision that TRL trains in, for an evaluation.

    Accelerate wraps the model's forward only in train(), and `compute_loss_context_manager` leaves
    it to accelerate: without this the untrained model would be judged in another precision.
    """
    args = trainer.args
    return torch.autocast(
        trainer.model.device.type,
        dtype=torch.float16 if args.fp16 else torch.bfloat16,
        enabled=bool(args.bf16 or args.fp16),
    )


def train(
    session: Session,
    trainer: Trainer,
    steps: StepJournal,
    measure: Callable[[Split, int], EvaluationPoint],
    make: Make | None = None,
) -> Result:
    """Measure the held-out splits, let TRL train, measure again, and say what it came to.

    `measure(split, step)` is called for the splits that have rows, in a phase of its own. Several
    processes measure the same rows each, since a sharded model computes only when all of them call
    it; it is wrapped in train(), so the untrained model is measured there, when the first step begins.
    `make` builds a trainer on another model, for what a probe tries after training.
    """
    rows = {"validation": session.splits.validation, "test": session.splits.test}
    progress = session.progress
    measured = session.spec.measured_splits

    def evaluate(step: int, *splits: Split) -> None:
        for split in splits:
            if len(rows[split]):
                with session.journal.phase("evaluate"), uncounted(session.recorder):
                    progress.evaluations.append(measure(split, step))

    def evaluate_on_the_way(step: int) -> None:
        evaluate(step, *(("validation",) if step else measured))

    parallel = session.launch.parallel
    every = session.spec.evaluation.every_steps
    trainer.add_callback(EvaluateOnTheWay(every, evaluate_on_the_way, parallel is not None))
    trainer.add_callback(steps)
    if session.recorder is not None:  # after the journal, whose steps end before they are looked at
        session.recorder.watch(trainer)
    adapter_sha256 = hash_trainable(trainer.model) if session.spec.lora else None
    parameters = count_parameters(trainer.model)  # whole: sharded weights would count as shards
    if parallel is not None:
        trainer.add_callback(CheckWrapping(trainer, parallel, progress))
    else:
        evaluate_on_the_way(0)
    with session.journal.phase("train"):
        begin = time.monotonic()
        trainer.train()
        train_wall_s = time.monotonic() - begin
    if progress.nan_step is None:  # nothing can be sampled from weights that are not numbers
        evaluate(progress.steps_done, *measured)
        _keep_adapter(session, trainer)
    _finish_probe(session, trainer, make)
    return _result(session, parameters, train_wall_s, adapter_sha256)


def _keep_adapter(session: Session, trainer: Trainer) -> None:
    """Save the trained adapter if the matrix asks for it."""
    if session.spec.keeps_adapter:
        source, progress = session.spec.model.source, session.progress
        with session.journal.phase("save"):
            progress.notes += save_adapter(trainer, session.attempt, source, progress.sources)


def _finish_probe(session: Session, trainer: Trainer, make: Make | None) -> None:
    """Write what a probed run noted, and try what it asks for."""
    recorder, spec = session.recorder, session.spec
    if recorder is None:
        return
    recorder.write(session.attempt)  # whatever becomes of the checks
    if make is None or session.progress.nan_step is not None:
        return
    arguments = trainer_arguments(session)
    subject = Subject(spec, trainer, session.attempt, session.launch.places, arguments, make)
    with session.journal.phase("evaluate"):
        recorder.checks |= run_checks(recorder, subject)
    recorder.write(session.attempt)


def _result(
    session: Session,
    parameters: ParameterCounts,
    train_wall_s: float,
    adapter_sha256: str | None,
) -> Result:
    status, reason = _outcome(session.progress, session.spec.judged_split)
    return Result(
        status=status,
        reason=reason,
        steps_done=session.progress.steps_done,
        train_wall_s=train_wall_s,
        parameters=parameters,
        evaluations=tuple(session.progress.evaluations),
        device=session.launch.device,
        adapter_sha256=adapter_sha256,
        translations=session.progress.translations,
        notes=tuple(session.progress.notes),
        unusable_rows=session.progress.unusable[:LISTED],
        unusable_count=len(session.progress.unusable),
        distributed=session.progress.distributed,
        generation=session.progress.generation,
        sources=session.progress.sources,
    )


def _outcome(progress: Progress, split: Split) -> tuple[Status, str | None]:
    if progress.nan_step is not None:
        return Status.NAN, progress.nan_reason
    judged = [p for p in progress.evaluations if p.split == split]
    if judged and judged[-1].value is None:
        return Status.NAN, "the held-out metric was not a number after training"
    first, last = (judged[0].value, judged[-1].value) if judged else (None, None)
    if judged and judged[0].metric == "nll" and first is not None and last is not None:
        rise = last - first
        if rise > DIVERGED_BY_NATS:
            return (
                Status.DIVERGED,
                f"held-out NLL rose by {rise:.2f} nats over the untrained model's",
            )
    return Status.OK, None


def _logs_to_trackio(spec: RunSpec) -> bool:
    report_to = spec.trainer.get("report_to")
    return report_to == "trackio" or (isinstance(report_to, list) and "trackio" in report_to)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """An adapter's settings as JSON can hold them; the base model's place is left out."""
    return {
        k: sorted(v) if isinstance(v, set) else v
        for k, v in config.items()
        if k != "base_model_name_or_path"
    }
