"""The few calls of GitHub's REST API that these scripts make, with the job's own token.

The runner gives GITHUB_API_URL and GITHUB_REPOSITORY, the workflow GH_TOKEN. Standard library only. The
token is never sent on to where GitHub redirects a download.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

TIMEOUT_S = 60.0


def get(path: str, **query: str) -> Any:
    """Ask for something of this repository, e.g. `pulls`."""
    with _open("GET", path, query=query) as answer:
        return json.load(answer)


def get_pages(path: str, *, most_pages: int = 20) -> list[Any]:
    """Ask for every page of a list, up to a limit."""
    found: list[Any] = []
    for page in range(1, most_pages + 1):
        items = get(path, per_page="100", page=str(page))
        found += items
        if len(items) < 100:
            break
    return found


def send(method: str, path: str, body: dict[str, Any]) -> Any:
    """Create or change something of this repository."""
    with _open(method, path, body=json.dumps(body).encode()) as answer:
        return json.load(answer)


def download(path: str, limit_bytes: int) -> bytes:
    """Fetch a file of at most so many bytes."""
    with _open("GET", path) as answer:
        content: bytes = answer.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise SystemExit(
            f"{path} is larger than {limit_bytes} bytes, which nothing of ours is; left alone"
        )
    return content


def _open(
    method: str, path: str, *, query: dict[str, str] | None = None, body: bytes | None = None
) -> Any:
    base, repository = os.environ["GITHUB_API_URL"], os.environ["GITHUB_REPOSITORY"]
    if not base.startswith(("https://", "http://127.0.0.1:")):
        raise SystemExit(f"GITHUB_API_URL is {base!r}; expected an https address")
    url = f"{base}/repos/{repository}/{path}"
    if query:
        url += "?" + urllib.parse.urlencode(query)
    request = urllib.request.Request(url, data=body, method=method)  # noqa: S310 - looked at above
    request.add_header("Accept", "application/vnd.github+json")
    request.add_header("X-GitHub-Api-Version", "2022-11-28")
    # Unredirected: the storage that holds an artifact must not see the token.
    request.add_unredirected_header("Authorization", f"Bearer {os.environ['GH_TOKEN']}")
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(2000).decode(errors="replace")
        raise SystemExit(f"GitHub answered {error.code} to {method} {path}: {said}") from None
    except OSError as error:
        raise SystemExit(f"GitHub could not be reached for {method} {path}: {error}") from None
