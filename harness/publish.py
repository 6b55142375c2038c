"""A study's report, or the adapters it trained, as a repository on the Hub: explicit, never by itself.

What would go is put together and looked through first: a report that still names this machine's
folders, or holds what looks like a token, is refused with the file's name. Then one commit holds it
all. What this leaves out: rendering the report (`report`).
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness import text
from harness.access import LOG_IN, endpoint, has_token, hub_errors
from harness.errors import ConfigError, MachineError
from harness.files import ADAPTER, ADAPTER_FILES
from harness.findings import headline
from harness.record import Status
from harness.sources import FILE, is_repository, read_sources
from harness.store import Store
from harness.view import RunView, StudyView, load_view

Kind = Literal["space", "dataset", "model"]
TEXT = (".html", ".md", ".json", ".csv", ".svg", ".txt")
REPORT = ("index.html", "report.md", "brief.md", "data.json", "runs.csv")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What the services that a training machine logs in to call their keys.
_TOKEN = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bapi_org_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}"
    r"|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}|\bsk-[A-Za-z0-9_-]{20,}|\bAKIA[0-9A-Z]{16}\b"
    r"|://[^/\s:@\"']+:[^/\s:@\"']+@"
)
_HOMES = re.compile(r"(?<![\w.])/(?:home|Users)/[\w.-]+|(?<![\w./-])/root/|\b[A-Z]:\\+Users\\")


@dataclass(frozen=True)
class Upload:
    """Files on their way to a repository: name there → content, or the file that holds it."""

    destination: str
    kind: Kind
    files: Mapping[str, bytes | Path]
    message: str

    def size_of(self, name: str) -> int:
        """A file's size in bytes."""
        content = self.files[name]
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(map(self.size_of, self.files))


def prepare(study: Path, destination: str, what: str, kind: str | None = None) -> Upload:
    """Put together what would be published; contacts nothing.

    Raises: ConfigError if the study has nothing of the kind, or something in it must not be shown.
    """
    allowed = ("model",) if what == "adapters" else ("space", "dataset")
    problems = []
    if not NAME.fullmatch(destination):
        problems.append(f"--to is {destination!r}; expected OWNER/NAME, e.g. me/lora-study")
    if kind is not None and kind not in allowed:
        problems.append(f"--type is {kind!r}; expected {' or '.join(allowed)} for --what {what}")
    if problems:
        raise ConfigError(*problems)
    store = Store(study)
    collect: Callable[[Store, Kind], dict[str, bytes | Path]]
    collect = _adapters if what == "adapters" else _report
    chosen = cast(Kind, kind or allowed[0])
    files = collect(store, chosen)
    found = list(_private(files, store.root))
    if found:
        raise ConfigError(*found)
    return Upload(
        destination, chosen, files, f"{what.capitalize()} of study {study.resolve().name}"
    )


def send(upload: Upload, *, is_private: bool) -> str:
    """Make the repository if it is not there, and commit every file at once; returns its address.

    Raises: MachineError without a token, or if the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if not has_token():
        raise MachineError(
            f"publishing needs a token that may write, and none was found: make one at "
            f"{endpoint()}/settings/tokens, give it with {LOG_IN}, then run the same command again"
        )
    api = HfApi()
    try:
        url = api.create_repo(
            upload.destination,
            repo_type=upload.kind,
            private=is_private or None,
            exist_ok=True,
            space_sdk="static" if upload.kind == "space" else None,
        )
        api.create_commit(
            upload.destination,
            [
                CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
                for name, content in sorted(upload.files.items())
            ],
            repo_type=upload.kind,
            commit_message=upload.message,
        )
    except hub_errors() as error:
        raise MachineError(_refusal(error, upload)) from error
    return str(url)


def _refusal(error: Exception, upload: Upload) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            f"{endpoint()} answered {status}: your token may not write to {upload.destination}; use "
            f"one with write access, made at {endpoint()}/settings/tokens, with {LOG_IN}"
        )
    what = f"answered {status}" if status else f"gave no answer ({type(error).__name__})"
    return (
        f"{endpoint()} {what} while {upload.kind} {upload.destination} was written; run the same "
        "command again, what is there already is not sent twice"
    )


def _report(store: Store, kind: Kind) -> dict[str, bytes | Path]:
    """A report with its data, the study's plan and its sources, and a README."""
    view = load_view(store)
    folder = store.report_dir
    missing = [name for name in REPORT if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"study {str(store.root)!r} has no whole report ({', '.join(missing)} missing); run "
            f"`harness report {store.root}` first"
        )
    files: dict[str, bytes | Path] = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    files["study.json"] = store.root / "study.json"
    if (store.root / FILE).is_file():
        files[FILE] = _shared_sources(store)
    title = text.clean(view.matrix.title)
    brief = (folder / "brief.md").read_text(encoding="utf-8")
    files["README.md"] = _render(
        "study_card.md.j2",
        kind=kind,
        title=title,
        # A Space's list shows little of it, and refuses more than 60 characters.
        short=json.dumps(
            headline(view)[:57].rstrip() + "…" if len(headline(view)) > 60 else title[:60]
        ),
        brief=brief,
        margins_hash=view.study.margins_hash,
        matrix_hash=view.study.matrix_hash,
    )
    return files


def _adapters(store: Store, _kind: Kind) -> dict[str, bytes | Path]:
    """Every adapter that a run which ended ok kept, and one card for all of them."""
    view = load_view(store)
    kept = [(r, folder) for r in view.runs if (folder := _adapter_folder(store, r)) is not None]
    if not kept:
        raise ConfigError(
            f"study {str(store.root)!r} has no saved adapter of a run that ended ok; a matrix keeps "
            "them with `keeps_adapters: true`"
        )
    files: dict[str, bytes | Path] = {}
    for run, folder in kept:
        # One adapter lies where PeftModel.from_pretrained(NAME) looks, several in a folder each.
        inside = "" if len(kept) == 1 else f"{_cell(run)}/"
        files |= {f"{inside}{Path(name).name}": folder.parent / name for name in ADAPTER_FILES}
    files["README.md"] = _render(
        "adapter_card.md.j2", **_card(store, view, [run for run, _ in kept])
    )
    return files


def _adapter_folder(store: Store, run: RunView) -> Path | None:
    if run.record is None or run.record.status is not Status.OK:
        return None
    attempt = store.run_dir(run.planned.run_id) / f"attempt-{run.record.attempt}"
    is_whole = all((attempt / name).is_file() for name in ADAPTER_FILES)
    return attempt / ADAPTER if is_whole else None


def _card(store: Store, view: StudyView, runs: list[RunView]) -> dict[str, Any]:
    """What an adapter card tells: per run what it is made of and what it came to."""
    sources = read_sources(store)
    rows: list[dict[str, Any]] = []
    bases: list[str] = []
    for run in runs:
        spec, summary = run.spec, run.summary
        assert spec is not None  # noqa: S101 - a run without a spec has no record
        commit = sources.commit_of(spec.model.source) if sources else None
        if is_repository(spec.model.source) and spec.model.source not in bases:
            bases.append(spec.model.source)
        rows.append(
            {
                "cell": _cell(run),
                "task": spec.task,
                "model": spec.model.source,
                "commit": commit,
                "dataset": spec.dataset.name,
                "dataset_commit": sources.commit_of(spec.dataset.name) if sources else None,
                "rank": spec.lora.r if spec.lora else None,
                "alpha": f"{spec.lora.lora_alpha:g}" if spec.lora else None,
                "metric": summary.metric if summary else None,
                "before": text.number(summary.base_value if summary else None),
                "after": text.number(summary.final_value if summary else None),
                "steps": summary.steps if summary else None,
            }
        )
    return {
        "title": text.clean(view.matrix.title),
        "bases": json.dumps(bases),
        "datasets": json.dumps(sorted({r["dataset"] for r in rows if "/" in r["dataset"]})),
        "rows": rows,
        "matrix_hash": view.study.matrix_hash,
        "harness_version": view.study.harness_version,
    }


def _cell(run: RunView) -> str:
    return run.planned.cell


def _shared_sources(store: Store) -> bytes:
    """sources.json without the folders of this machine; that a folder was mapped stays."""
    sources = read_sources(store)
    assert sources is not None  # noqa: S101 - the caller looked
    data = sources.model_dump(mode="json")
    for entry in data["repositories"]:
        entry["folder"] = entry["folder"] and Path(entry["folder"]).name
    return json.dumps(data, indent=1).encode() + b"\n"


def _private(files: Mapping[str, bytes | Path], study: Path) -> Iterator[str]:
    """Name every file that holds a folder of this machine or what looks like a token."""
    places = _own_places(study)
    for name, content in sorted(files.items()):
        if Path(name).suffix not in TEXT:
            continue
        shown = (content if isinstance(content, bytes) else content.read_bytes()).decode(
            errors="replace"
        )
        for number, line in enumerate(shown.splitlines(), 1):
            if _TOKEN.search(line):
                yield f"{name}, line {number}: holds what looks like a token; take it out, and revoke it"
            elif _HOMES.search(line) or any(place in line for place in places):
                yield (
                    f"{name}, line {number}: names a folder of this machine; expected none in what is "
                    "published: use a repository's name and --map in the matrix, and render again"
                )


def _own_places(study: Path) -> set[str]:
    """Folders that only this machine has; short ones (/, /tmp) say nothing."""
    folders = (Path.home(), Path.cwd(), study.resolve(), Path(tempfile.gettempdir()))
    return {f"{folder}/" for folder in folders if len(folder.parts) > 2}


def _render(template: str, **values: Any) -> bytes:
    environment = Environment(
        loader=PackageLoader("harness"),
        autoescape=False,  # noqa: S701 - Markdown escapes every value with a filter of its own
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = text.markdown
    return environment.get_template(template).render(**values).encode()
