"""The comment on a pull request: whose number, whose words, one comment, and nothing that acts."""

from __future__ import annotations

import importlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from harness.compare.markdown import LIMIT, render_markdown
from tests.ci_scripts import SCRIPTS, GitHub, run_script, serve
from tests.comparison_pages import HOSTILE, every_word, with_text

SHA = "c0ffee" * 6 + "abcd"
BRIEF = "**LoRA matches in 1 of 1.**\n\n| Pair | Word |\n| --- | --- |\n| sft | supported |\n"
MARKER = "<!-- lora-harness: benchmark -->"
GATE_MARKER = "<!-- lora-harness: comparison -->"


def archive(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, text in members.items():
            opened.writestr(name.replace("__", "."), text)
    return buffer.getvalue()


def answers(content: bytes, size_bytes: int = 500, name: str = "brief") -> dict[str, Any]:
    listed = {"id": 9, "name": name, "expired": False, "size_in_bytes": size_bytes}
    return {
        "GET pulls": [
            {"number": 3, "head": {"sha": "0" * 40}},
            {"number": 7, "head": {"sha": SHA}},
        ],
        "GET actions/runs/5/artifacts": {"artifacts": [listed]},
        "GET actions/artifacts/9/zip": content,
        "GET issues/7/comments": [],
        "POST issues/7/comments": {"id": 1},
        "PATCH issues/comments/40": {"id": 40},
    }


@pytest.fixture
def event(tmp_path: Path) -> Path:
    return write_event(tmp_path)


def write_event(folder: Path, **changes: Any) -> Path:
    run = {
        "id": 5,
        "event": "pull_request",
        "conclusion": "success",
        "head_sha": SHA,
        "head_branch": "a&b#c",
        "head_repository": {"owner": {"login": "stranger"}},
    }
    path = folder / "event.json"
    path.write_text(json.dumps({"workflow_run": {**run, **changes}}))
    return path


@pytest.fixture
def github() -> Iterator[GitHub]:
    with serve(answers(archive(brief__md=BRIEF))) as known:
        yield known


def test_the_brief_becomes_one_comment_on_the_pull_request_that_github_names(
    github: GitHub, event: Path
) -> None:
    done = run_script("comment", **github.variables(event))
    assert done.returncode == 0, done.stderr
    [(what, body)] = github.writes()
    assert what == "POST issues/7/comments"
    assert body["body"].startswith(MARKER)
    assert "| sft | supported |" in body["body"]
    assert "https://github.example/someone/lora-harness/actions/runs/5" in body["body"]
    # The branch is a stranger's text: it reaches GitHub as one value of the query.
    assert any("head=stranger%3Aa%26b%23c" in what for what, _, _ in github.asked)


def test_a_later_run_changes_our_comment_and_nobody_elses(github: GitHub, event: Path) -> None:
    github.answers["GET issues/7/comments"] = [
        {"id": 39, "user": {"login": "stranger"}, "body": MARKER + " mine"},
        {"id": 41, "user": {"login": "github-actions[bot]"}, "body": "something else"},
        {"id": 40, "user": {"login": "github-actions[bot]"}, "body": MARKER + "\nold"},
    ]
    assert run_script("comment", **github.variables(event)).returncode == 0
    assert [what for what, _ in github.writes()] == ["PATCH issues/comments/40"]


def test_our_comment_is_found_behind_a_hundred_others(github: GitHub, event: Path) -> None:
    other = {"id": 1, "user": {"login": "someone"}, "body": "a remark"}
    github.answers["GET issues/7/comments"] = [other] * 100
    assert run_script("comment", **github.variables(event)).returncode == 0
    pages = [what for what, _, _ in github.asked if what.startswith("GET issues/7/comments")]
    assert len(pages) > 1
    assert "page=2" in pages[1]


@pytest.mark.parametrize(
    "changes",
    [{"event": "push"}, {"head_repository": None}, {"head_sha": "1" * 40}],
    ids=["not a pull request", "fork deleted", "commit no longer the newest"],
)
def test_a_run_without_a_pull_request_of_its_own_leaves_no_comment(
    github: GitHub, tmp_path: Path, changes: dict[str, Any]
) -> None:
    done = run_script("comment", **github.variables(write_event(tmp_path, **changes)))
    assert done.returncode == 0, done.stderr
    assert github.writes() == []


@pytest.mark.parametrize("listed", [[], [{"id": 9, "expired": True, "size_in_bytes": 1}]])
def test_a_run_that_left_no_brief_leaves_no_comment(
    github: GitHub, event: Path, listed: list[dict[str, Any]]
) -> None:
    github.answers["GET actions/runs/5/artifacts"] = {"artifacts": listed}
    assert run_script("comment", **github.variables(event)).returncode == 0
    assert github.writes() == []


@pytest.mark.parametrize(
    ("content", "size_bytes", "said"),
    [
        (b"no zip", 500, "no readable brief.md"),
        (archive(other__md=BRIEF), 500, "no readable brief.md"),
        (archive(brief__md="x" * 2_000_000), 500, "more than 16384 bytes"),  # 2 kB when packed
        (archive(brief__md=BRIEF), 10**9, "expected at most 65536"),
        (b"x" * 70_000, 500, "larger than 65536 bytes"),  # more than GitHub announced
    ],
    ids=["no archive", "another file", "a bomb", "too large", "larger than announced"],
)
def test_a_hostile_artifact_is_refused_and_nothing_is_written(
    github: GitHub, event: Path, content: bytes, size_bytes: int, said: str
) -> None:
    github.answers.update(answers(content, size_bytes))
    done = run_script("comment", **github.variables(event))
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert github.writes() == []


def test_the_token_does_not_follow_a_download_to_its_storage(github: GitHub, event: Path) -> None:
    with serve({"GET /blob": archive(brief__md=BRIEF)}) as storage:
        github.redirects["GET actions/artifacts/9/zip"] = f"{storage.address}/blob"
        assert run_script("comment", **github.variables(event)).returncode == 0
        [(_, headers, _)] = storage.asked
    assert "Authorization" not in headers
    assert all(headers["Authorization"] == "Bearer a-token" for _, headers, _ in github.asked)


def test_a_refusal_of_github_is_said_in_one_line(github: GitHub, event: Path) -> None:
    github.answers["POST issues/7/comments"] = 403
    done = run_script("comment", **github.variables(event))
    assert done.returncode == 1
    assert "GitHub answered 403 to POST issues/7/comments" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "acts"),
    [
        ("ping @octocat and @org/team", "@o"),
        ("&#64;octocat", "&#64;"),
        ("fixes #12, other/repo#3", "#1"),
        ("closes GH-12", "GH-1"),
        ("closes GH\\-12", "GH\\-1"),
        ("[click](https://x.example)", "["),
        ("\\[click](x)", "["),
        ("![](https://x.example/pixel.png)", "!["),
        ("<https://x.example>", "<"),
        ("<details><summary>hidden", "<"),
        ("see https://x.example and WWW.x.example", "://x"),
        ("see WWW.x.example", "WWW.x"),
        ("see www\\.x.example", "www\\."),
        ("\\&#64;octocat", "&#64;"),
        ("[ref]: https://x.example", "["),
        ("<!-- lora-harness: benchmark -->", "<!--"),
        ("# a headline", "# a"),
        ("## see @octocat in #12", "@o"),
        ("_www.evil.example_", "www."),
        ("_gh-1", "gh-1"),
        ("```\nswallowed", "```"),
        ("`\0``", "```"),
        ("~~~~\nswallowed", "~~~"),
        ("$x$ and $$y$$", "$"),
    ],
)
def test_nothing_in_a_strangers_text_acts(
    text: str, acts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    shown = importlib.import_module("comment").defuse(text)
    assert acts not in shown
    assert acts in text.replace("\0", "")


def test_a_brief_that_grows_when_it_is_made_harmless_still_fits_into_a_comment(
    github: GitHub, event: Path
) -> None:
    github.answers.update(answers(archive(brief__md="[" * 16_384)))
    assert run_script("comment", **github.variables(event)).returncode == 0
    [(_, body)] = github.writes()
    assert len(body["body"]) < 65_536
    assert body["body"].startswith(MARKER)
    assert body["body"].rstrip().endswith("the rest is in the run's artifacts.")


def test_a_brief_of_ours_is_shown_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    ours = (SCRIPTS.parents[1] / "reports" / "smollm2" / "brief.md").read_text()
    assert importlib.import_module("comment").defuse(ours) == ours.strip()


def test_a_comparison_becomes_a_comment_of_its_own(github: GitHub, event: Path) -> None:
    text = render_markdown(every_word())
    github.answers.update(answers(archive(comparison__md=text), name="comparison"))
    github.answers["GET issues/7/comments"] = [
        {"id": 39, "user": {"login": "github-actions[bot]"}, "body": MARKER + " a brief"},
    ]
    done = run_script("comment", **github.variables(event))
    assert done.returncode == 0, done.stderr
    [(what, body)] = github.writes()
    assert what == "POST issues/7/comments"
    assert body["body"].startswith(f"{GATE_MARKER}\n### Comparison of {SHA[:12]}")
    assert "left no artifact 'brief'" in done.stdout
    github.answers["GET issues/7/comments"].append(
        {"id": 40, "user": {"login": "github-actions[bot]"}, "body": body["body"]}
    )
    assert run_script("comment", **github.variables(event)).returncode == 0
    assert [what for what, _ in github.writes()[1:]] == ["PATCH issues/comments/40"]


def test_a_brief_and_a_comparison_of_one_run_are_two_comments(github: GitHub, event: Path) -> None:
    both = archive(brief__md=BRIEF, comparison__md=render_markdown(every_word()))
    listed = [
        {"id": 9, "name": name, "expired": False, "size_in_bytes": 500}
        for name in ("brief", "comparison")
    ]
    for each in listed:
        each["id"] = f"of-{each['name']}"
        github.answers[f"GET actions/artifacts/of-{each['name']}/zip"] = both
    github.answers["GET actions/runs/5/artifacts"] = {"artifacts": listed}
    assert run_script("comment", **github.variables(event)).returncode == 0
    told = [body["body"] for _, body in github.writes()]
    assert [text.splitlines()[0] for text in told] == [MARKER, GATE_MARKER]
    assert "sft | supported" in told[0]
    assert "changed" in told[1]


def test_the_longest_comparison_fits_and_a_longer_one_is_refused(
    github: GitHub, event: Path
) -> None:
    text = render_markdown(with_text("[" * 60, cells=900).comparison)
    assert len(text) > 0.9 * LIMIT
    github.answers.update(
        answers(archive(comparison__md=text), size_bytes=250_000, name="comparison")
    )
    assert run_script("comment", **github.variables(event)).returncode == 0
    [(_, body)] = github.writes()
    assert len(body["body"]) < 65_536
    github.answers.update(answers(archive(comparison__md="x" * 240_001), name="comparison"))
    done = run_script("comment", **github.variables(event))
    assert done.returncode == 1
    assert "more than 240000 bytes" in done.stderr
    assert len(github.writes()) == 1


def shown(markdown: str) -> tuple[str, set[str]]:
    """What a reader sees of Markdown, and the tags that it became."""
    html = MarkdownIt("gfm-like", {"linkify": False}).render(markdown)
    text = re.sub("[\u200b\u2060]", "", unescape(re.sub(r"<[^>]*>", "", html)))
    return " ".join(text.split()), set(re.findall(r"<(\w+)", html))


def test_a_comparison_of_ours_reads_as_it_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    ours = render_markdown(with_text(HOSTILE).comparison).removeprefix(GATE_MARKER)
    (meant, known), (seen, tags) = map(
        shown, (ours, importlib.import_module("comment").defuse(ours))
    )
    assert seen == meant
    assert "<script>alert(1)</script>" in seen
    assert tags - {"br"} == (known - {"h3", "h4"}) | {"p", "strong"}
    assert "table" in tags
