"""Commands that talk to the Hub and do nothing else: `fetch` brings, `publish` takes there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.options import BUDGET, FILTER, JSON, MAP, MATRIX, OFFLINE, SEEDS, SETTINGS, STUDY

if TYPE_CHECKING:
    from harness.hub import Snapshot
    from harness.publish import Upload

FETCH_EXAMPLES = """\b
Examples:
  harness fetch --matrix blog
  harness fetch --matrix blog --filter 'grpo-*' --json
  harness fetch --matrix blog --map meta-llama/Llama-3.1-8B=/models/llama
  HF_ENDPOINT=https://mirror.example harness fetch --matrix smollm3
"""
PUBLISH_EXAMPLES = """\b
Examples:
  harness publish results/blog --to me/lora-study --dry-run
  harness publish results/blog --to me/lora-study --private
  harness publish results/blog --to me/lora-data --type dataset
  harness publish results/blog --to me/lora-adapters --what adapters
"""


# Every option but the last two is a field of plan.Request, by its name there.
@click.command(epilog=FETCH_EXAMPLES)
@MATRIX
@SETTINGS
@FILTER
@SEEDS
@BUDGET
@click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path),
    help="a study that goes on: its commits are fetched; default results/MATRIX",
)
@MAP
@OFFLINE
@JSON
@click.option("--quiet", "-q", is_flag=True, help="no progress")
def fetch(is_json: bool, quiet: bool, **asked: Any) -> int:
    """Download the models and datasets of a matrix, and nothing else; again goes on."""
    from harness.hub import obtain
    from harness.plan import Request, resolve
    from harness.sources import read_sources
    from harness.store import Store
    from harness.terminal import complain

    resolved = resolve(Request(**asked))
    known = read_sources(Store(resolved.output_dir))
    tell = (lambda _text: None) if quiet else complain
    obtained = obtain(resolved.specs, asked["maps"], known, tell, is_quiet=quiet or is_json)
    for snapshot in obtained.snapshots:
        click.echo(_snapshot_line(snapshot, obtained.sources.endpoint, is_json=is_json))
    if not obtained.snapshots:
        tell(f"matrix {resolved.loaded.matrix.name} reads nothing from the Hub")
    return 0


@click.command(epilog=PUBLISH_EXAMPLES)
@STUDY
@click.option("--to", "destination", required=True, metavar="OWNER/NAME", help="the repository")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["space", "dataset", "model"]),
    help="default: space (a static page) for a report, model for adapters",
)
@click.option(
    "--what",
    type=click.Choice(["report", "adapters"]),
    default="report",
    show_default=True,
    help="the report with its data, or the trained adapters of runs that ended ok",
)
@click.option("--private", "is_private", is_flag=True, help="make the repository a private one")
@click.option("--dry-run", is_flag=True, help="list what would go where, and contact nothing")
@JSON
def publish(
    study: Path,
    destination: str,
    kind: str | None,
    what: str,
    is_private: bool,
    dry_run: bool,
    is_json: bool,
) -> int:
    """Upload a study's report or adapters to the Hub. Nothing else ever uploads anything."""
    from harness.publish import prepare, send

    upload = prepare(study, destination, what, kind)
    if dry_run:
        _show_upload(upload, is_private=is_private, is_json=is_json)
        return 0
    url = send(upload, is_private=is_private)
    line = {"url": url, "files": len(upload.files), "bytes": upload.size_bytes}
    click.echo(json.dumps(line) if is_json else f"published {len(upload.files)} files at {url}")
    return 0


def _snapshot_line(snapshot: Snapshot, asked: str | None, *, is_json: bool) -> str:
    entry = snapshot.entry
    if is_json:
        data = {
            **entry.source.model_dump(mode="json"),
            "revision": entry.revision,
            "bytes": snapshot.size_bytes,
            "folder": str(snapshot.folder),
            "endpoint": asked,
        }
        return json.dumps(data)
    commit = entry.commit[:12] if entry.commit else "mapped"
    size = f"{snapshot.size_bytes / 2**20:,.1f} MiB"
    return f"{entry.kind:7}  {entry.repository}  {commit:12}  {size:>12}  {snapshot.folder}"


def _show_upload(upload: Upload, *, is_private: bool, is_json: bool) -> None:
    sizes = {name: upload.size_of(name) for name in sorted(upload.files)}
    if is_json:
        data = {"to": upload.destination, "type": upload.kind, "private": is_private}
        click.echo(json.dumps({**data, "files": sizes, "bytes": upload.size_bytes}))
        return
    who = "private" if is_private else "public"
    click.echo(f"would upload to the {who} {upload.kind} {upload.destination}:")
    for name, size in sizes.items():
        click.echo(f"{size:>12,} bytes  {name}")
    click.echo(f"{upload.size_bytes:>12,} bytes  in {len(sizes)} files; nothing was contacted")
