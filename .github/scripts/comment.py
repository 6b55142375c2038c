"""Put what a pull request's benchmark came to into a comment on it, which later runs update.

The brief of a benchmark and the comparison of an upgrade gate have a comment each, where a run left them.

Both ran the pull request's code without a token; this runs our code with one. What they left is a
stranger's text: its size is capped, one file of a fixed name is read out of it without unpacking anything,
and what could notify, link or hide is taken out of it. The number of the pull request comes from GitHub,
never from the artifact. Standard library only; nothing of the pull request is checked out.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import api


@dataclass(frozen=True)
class Kind:
    """A text that a run may leave, alone in an artifact, and the comment that it becomes."""

    artifact: str
    member: str
    max_artifact_bytes: int
    max_member_bytes: int
    title: str
    marker: str  # by which our own comment is found again


KINDS = (
    Kind(
        "brief", "brief.md", 64 * 1024, 16 * 1024,
        "Benchmark", "<!-- lora-harness: benchmark -->",
    ),
    # Its 60,000 characters may have four bytes each.
    Kind(
        "comparison", "comparison.md", 256 * 1024, 240_000,
        "Comparison", "<!-- lora-harness: comparison -->",
    ),
)  # fmt: skip
MAX_BODY_CHARACTERS = 65_000  # GitHub takes 65,536; a text grows when it is made harmless
CUT = "\n\n… the rest is in the run's artifacts."
BOT = "github-actions[bot]"
BROKEN = (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, EOFError, zlib.error)
# Marks that could notify people, close or link issues, load images or hide text; a space of no width
# keeps them readable. Brackets, `<` and `$` become entities, which Markdown never takes for a link, a tag
# or a formula. A backslash before one of them would show the entity itself, so it goes first, and what is
# an entity already becomes its character: nothing is escaped twice.
ESCAPED = re.compile(r"\\([\[<&$@#])")
ENTITIES = {"&lt;": "<", "&gt;": ">", "&amp;": "&"}
HARMLESS = str.maketrans(
    {
        **{"&": "&amp;", "<": "&lt;", "[": "&#91;", "$": "&#36;", "@": "@\u200b", "#": "#\u200b"},
        **{"\r": "", "\0": ""},
    }
)


def main() -> None:
    """Comment on the open pull requests whose newest commit was benchmarked."""
    run = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_bytes())["workflow_run"]
    if run["event"] != "pull_request":
        return say(f"run {run['id']} belongs to no pull request: it was started by {run['event']}")
    pulls = open_pulls(run)
    if not pulls:
        return say("no open pull request has this commit as its newest: nothing to comment on")
    for kind in KINDS:
        text = fetch(run["id"], kind)
        if text is None:
            say(f"run {run['id']} left no artifact {kind.artifact!r}")
            continue
        for number in pulls:
            put(number, body_of(run, kind, text), kind.marker)
    return None


def open_pulls(run: dict[str, Any]) -> list[int]:
    """Find the open pull requests of the run's branch that still stand at its commit."""
    owner = (run["head_repository"] or {}).get("owner", {}).get("login")
    if owner is None:  # the fork was deleted
        return []
    found = api.get("pulls", state="open", head=f"{owner}:{run['head_branch']}", per_page="100")
    return [pull["number"] for pull in found if pull["head"]["sha"] == run["head_sha"]]


def fetch(run_id: int, kind: Kind) -> str | None:
    """Read a text out of the run's artifact; None if it left none."""
    listed = api.get(f"actions/runs/{run_id}/artifacts", name=kind.artifact)["artifacts"]
    if not listed or listed[0]["expired"]:
        return None
    size_bytes = listed[0]["size_in_bytes"]
    if size_bytes > kind.max_artifact_bytes:
        raise SystemExit(
            f"artifact {kind.artifact!r} has {size_bytes} bytes; expected at most "
            f"{kind.max_artifact_bytes}: left alone"
        )
    path = f"actions/artifacts/{listed[0]['id']}/zip"
    return read_member(api.download(path, kind.max_artifact_bytes), kind)


def read_member(archive: bytes, kind: Kind) -> str:
    """Read the one file out of an archive, and no more of it than a text of ours can have."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened, opened.open(kind.member) as file:
            content = file.read(kind.max_member_bytes + 1)
    except BROKEN as error:
        raise SystemExit(
            f"artifact {kind.artifact!r} holds no readable {kind.member}: {error}"
        ) from None
    if len(content) > kind.max_member_bytes:
        raise SystemExit(f"{kind.member} has more than {kind.max_member_bytes} bytes: left alone")
    return content.decode(errors="replace")


def defuse(text: str) -> str:
    """Take out of a stranger's Markdown what acts: mentions, references, links, images, tags, fences.

    Headings become bold lines; what was escaped already shows as it would have.
    """
    text = re.sub(r"(?m)^#{1,6}[ \t]+(\S.*)$", r"**\1**", text)
    text = re.sub("|".join(ENTITIES), lambda entity: ENTITIES[entity[0]], text)
    text = ESCAPED.sub(r"\1", text).translate(HARMLESS).replace("://", ":\u200b//")
    # After an underscore GitHub links too, where `\b` sees no boundary. A backslash is gone when it looks.
    text = re.sub(r"(?i)(?<![A-Za-z0-9])(www)(\\?\.)", "\\1\u200b\\2", text)
    text = re.sub(r"(?i)(?<![A-Za-z0-9])(gh)(\\?-)(?=\d)", "\\1\u200b\\2", text)
    return re.sub(r"`{3,}|~{3,}", lambda fence: "\u200b".join(fence[0]), text).strip()


def body_of(run: dict[str, Any], kind: Kind, text: str) -> str:
    """The whole comment; our words first, so that nothing below can swallow them."""
    home = f"{os.environ['GITHUB_SERVER_URL']}/{os.environ['GITHUB_REPOSITORY']}"
    address = f"{home}/actions/runs/{run['id']}"
    head = (
        f"{kind.marker}\n### {kind.title} of {run['head_sha'][:12]}\n\n"
        f"[The run]({address}) ended in *{run['conclusion']}*; its artifacts hold the whole page. "
        "Everything below was written by this pull request's own code.\n\n---\n\n"
    )
    shown = defuse(text.removeprefix(kind.marker))
    room = MAX_BODY_CHARACTERS - len(head) - len(CUT)
    return f"{head}{shown if len(shown) <= room else shown[:room] + CUT}\n"


def put(number: int, body: str, marker: str) -> None:
    """Change our comment on a pull request, or write it."""
    for comment in api.get_pages(f"issues/{number}/comments"):
        if comment["user"]["login"] == BOT and comment["body"].startswith(marker):
            api.send("PATCH", f"issues/comments/{comment['id']}", {"body": body})
            return say(f"comment on pull request {number} updated")
    api.send("POST", f"issues/{number}/comments", {"body": body})
    return say(f"comment on pull request {number} written")


def say(text: str) -> None:
    """One line for the log."""
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
