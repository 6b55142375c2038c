"""Put the brief of a pull request's benchmark into one comment on it, which later runs update.

The benchmark ran the pull request's code without a token; this runs our code with one. What the benchmark
left is a stranger's text: its size is capped, one file of a fixed name is read out of it without unpacking
anything, and what could notify, link or hide is taken out of it. The number of the pull request comes from
GitHub, never from the artifact. Standard library only; nothing of the pull request is checked out.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import api

ARTIFACT = "brief"
MEMBER = "brief.md"
MAX_ARTIFACT_BYTES = 64 * 1024
MAX_MEMBER_BYTES = 16 * 1024
MAX_BODY_CHARACTERS = 65_000  # GitHub takes 65,536; a brief grows when it is made harmless
CUT = "\n\n… the rest is in the run's artifacts."
MARKER = "<!-- lora-harness: benchmark -->"
BOT = "github-actions[bot]"
BROKEN = (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, EOFError, zlib.error)
# Marks that could notify people, close or link issues, load images or hide text; a space of no width
# keeps them readable. Brackets, `<` and `$` become entities, which Markdown never takes for a link, a tag
# or a formula.
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
    brief = fetch_brief(run["id"])
    if brief is None:
        return say(f"run {run['id']} left no artifact {ARTIFACT!r}: nothing to comment with")
    for number in pulls:
        put(number, body_of(run, brief))
    return None


def open_pulls(run: dict[str, Any]) -> list[int]:
    """Find the open pull requests of the run's branch that still stand at its commit."""
    owner = (run["head_repository"] or {}).get("owner", {}).get("login")
    if owner is None:  # the fork was deleted
        return []
    found = api.get("pulls", state="open", head=f"{owner}:{run['head_branch']}", per_page="100")
    return [pull["number"] for pull in found if pull["head"]["sha"] == run["head_sha"]]


def fetch_brief(run_id: int) -> str | None:
    """Read the brief out of the run's artifact; None if it left none."""
    listed = api.get(f"actions/runs/{run_id}/artifacts", name=ARTIFACT)["artifacts"]
    if not listed or listed[0]["expired"]:
        return None
    size_bytes = listed[0]["size_in_bytes"]
    if size_bytes > MAX_ARTIFACT_BYTES:
        raise SystemExit(
            f"artifact {ARTIFACT!r} has {size_bytes} bytes; expected at most {MAX_ARTIFACT_BYTES}: "
            "left alone"
        )
    return read_member(api.download(f"actions/artifacts/{listed[0]['id']}/zip", MAX_ARTIFACT_BYTES))


def read_member(archive: bytes) -> str:
    """Read the one file out of an archive, and no more of it than a brief can have."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened, opened.open(MEMBER) as file:
            content = file.read(MAX_MEMBER_BYTES + 1)
    except BROKEN as error:
        raise SystemExit(f"artifact {ARTIFACT!r} holds no readable {MEMBER}: {error}") from None
    if len(content) > MAX_MEMBER_BYTES:
        raise SystemExit(f"{MEMBER} has more than {MAX_MEMBER_BYTES} bytes: left alone")
    return content.decode(errors="replace")


def defuse(text: str) -> str:
    """Take out of a stranger's Markdown what acts: mentions, references, links, images, tags, fences."""
    text = text.translate(HARMLESS).replace("://", ":\u200b//")
    # After an underscore GitHub links too, where `\b` sees no boundary.
    text = re.sub(r"(?i)(?<![A-Za-z0-9])(www)\.", "\\1\u200b.", text)
    text = re.sub(r"(?i)(?<![A-Za-z0-9])(gh)-(?=\d)", "\\1\u200b-", text)
    return re.sub(r"`{3,}|~{3,}", lambda fence: "\u200b".join(fence[0]), text).strip()


def body_of(run: dict[str, Any], brief: str) -> str:
    """The whole comment; our words first, so that nothing below can swallow them."""
    home = f"{os.environ['GITHUB_SERVER_URL']}/{os.environ['GITHUB_REPOSITORY']}"
    address = f"{home}/actions/runs/{run['id']}"
    head = (
        f"{MARKER}\n### Benchmark of {run['head_sha'][:12]}\n\n"
        f"[The run]({address}) ended in *{run['conclusion']}*; its artifacts hold the report. "
        "Everything below was written by this pull request's own code.\n\n---\n\n"
    )
    shown, room = defuse(brief), MAX_BODY_CHARACTERS - len(head) - len(CUT)
    return f"{head}{shown if len(shown) <= room else shown[:room] + CUT}\n"


def put(number: int, body: str) -> None:
    """Change our comment on a pull request, or write it."""
    for comment in api.get_pages(f"issues/{number}/comments"):
        if comment["user"]["login"] == BOT and comment["body"].startswith(MARKER):
            api.send("PATCH", f"issues/comments/{comment['id']}", {"body": body})
            return say(f"comment on pull request {number} updated")
    api.send("POST", f"issues/{number}/comments", {"body": body})
    return say(f"comment on pull request {number} written")


def say(text: str) -> None:
    """One line for the log."""
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
