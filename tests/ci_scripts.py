"""The scripts under .github/scripts as a runner starts them, and a GitHub that answers on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

GITHUB = Path(__file__).parent.parent / ".github"
SCRIPTS = GITHUB / "scripts"
# The same folder as the action names it: GITHUB_ACTION_PATH/../../scripts.
FROM_THE_ACTION = GITHUB / "actions" / "bench" / ".." / ".." / "scripts"
REPOSITORY = "someone/lora-harness"


def run_script(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script with nothing of the environment but PATH, HOME and what is given."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        [sys.executable, str(FROM_THE_ACTION / f"{name}.py"), *arguments],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@dataclass
class GitHub:
    """What the stand-in knows, and what it was asked."""

    address: str = ""
    answers: dict[str, Any] = field(
        default_factory=dict
    )  # "GET pulls" → JSON, bytes, or an int: an error
    redirects: dict[str, str] = field(
        default_factory=dict
    )  # "GET …" → where it sends a download to
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def variables(self, event: Path | None = None) -> dict[str, str]:
        """What a runner gives a script."""
        found = {
            "GITHUB_API_URL": self.address,
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GH_TOKEN": "a-token",
        }
        return found if event is None else {**found, "GITHUB_EVENT_PATH": str(event)}

    def writes(self) -> list[tuple[str, Any]]:
        """Every change that was asked for: what and with which body."""
        return [(what, body) for what, _, body in self.asked if not what.startswith("GET ")]


def named(answer: Any, path: str) -> Any:
    """An answer with those artifacts alone that are asked for by name, as GitHub does."""
    query = parse_qs(urlsplit(path).query)
    if not isinstance(answer, dict) or "artifacts" not in answer or "name" not in query:
        return answer
    (name,) = query["name"]
    return {"artifacts": [each for each in answer["artifacts"] if each.get("name", name) == name]}


@contextmanager
def serve(answers: Mapping[str, Any]) -> Iterator[GitHub]:
    """Answer GitHub's REST API on the loopback: JSON for objects, bytes as they stand."""
    known = GitHub(answers=dict(answers))

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            path = self.path.partition("?")[0].removeprefix(f"/repos/{REPOSITORY}/")
            what = f"{self.command} {path}"
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = f"{self.command} {self.path.removeprefix(f'/repos/{REPOSITORY}/')}"
            known.asked.append((asked, dict(self.headers), json.loads(body) if body else None))
            if what in known.redirects:
                self.send_response(302)
                self.send_header("Location", known.redirects[what])
                self.end_headers()
                return
            found = named(known.answers.get(what, 404), self.path)
            self.send_response(found if isinstance(found, int) else 200)
            self.end_headers()
            self.wfile.write(found if isinstance(found, bytes) else json.dumps(found).encode())

        def __getattr__(self, name: str) -> Any:
            if name in ("do_GET", "do_POST", "do_PATCH"):
                return self.answer
            raise AttributeError(name)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        known.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield known
        finally:
            server.shutdown()
            thread.join()
