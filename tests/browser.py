"""A headless Chromium driven over plain HTTP (WebDriver): enough to read a page and its logs.

No package is needed: chromedriver speaks JSON over HTTP. The browser gets a profile of its own and
no way out: every name resolves to nothing, so a request that is tried fails and is seen.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--no-first-run", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars",
)  # fmt: skip


def missing_binaries() -> list[str]:
    """Name what this machine lacks to drive a browser."""
    return [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]


class Browser:
    """One session of a running chromedriver."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.session = ""

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make one WebDriver call and return its value."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.base + self.session + path,
            data,
            {"Content-Type": "application/json"},
            method=method,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """Evaluate a function body in the page."""
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def command(self, name: str, **parameters: Any) -> Any:
        """Send a DevTools command."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Drain a log: 'browser' (the console) or 'performance' (DevTools events)."""
        entries: list[dict[str, Any]] = self.call("POST", "/se/log", {"type": kind})
        return entries

    def requests(self) -> list[str]:
        """Drain the addresses that were requested since the last call."""
        events = [json.loads(e["message"])["message"] for e in self.log("performance")]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [p["request"]["url"] for p in sent]

    def wait_for(self, script: str, timeout_s: float = 20) -> None:
        """Wait until a function body returns something true."""
        end = time.monotonic() + timeout_s
        while not self.run(script):
            assert time.monotonic() < end, f"timed out waiting for: {script}"
            time.sleep(0.1)

    def screenshot(self, path: Path) -> None:
        """Save what the window shows."""
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))


@contextlib.contextmanager
def chromium(*, has_scripts: bool = True, size: tuple[int, int] = (1280, 800)) -> Iterator[Browser]:
    """Start a browser with a fresh profile; end it, its driver and its profile afterwards."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            browser = Browser(_port_of(driver))
            extra = [f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile}"]
            extra += [] if has_scripts else ["--blink-settings=scriptEnabled=false"]
            options = {
                "args": [*FLAGS, *extra],
                "binary": shutil.which("chromium"),
                "prefs": {"download.default_directory": profile},
            }
            wanted = {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            answer = browser.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            browser.session = f"/session/{answer['sessionId']}"
            try:
                yield browser
            finally:
                browser.call("DELETE", "")
        finally:
            driver.terminate()
            driver.communicate(timeout=20)


def _port_of(driver: subprocess.Popen[str]) -> int:
    assert driver.stdout is not None
    for line in driver.stdout:
        if "started successfully on port" in line:
            return int(line.rsplit(" ", 1)[1].strip(" .\n"))
    raise AssertionError("chromedriver ended before it named its port")
