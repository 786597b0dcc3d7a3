"""Chromium without a window, driven over its own DevTools protocol through a pipe: no driver, no port, no package.

Only ``chromium`` itself has to be there. What a page logs and what it asks the network for is kept, so that a test can
say that there was none of either.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def chromium() -> str:
    """The browser's command. Without one a test is skipped, loudly; in CI it fails instead."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    message = f"no browser: none of {', '.join(NAMES)} is installed (apt-get install chromium), so no page was opened"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


class Browser:
    """One tab. Everything blocks until the browser has answered, or ``patience`` seconds have passed.

    errors: console errors and warnings, and uncaught exceptions, of the open page. requests: every address it asked
    for, its own included; data: addresses ask for nothing.
    """

    def __init__(self, command: str, profile: Path, patience: float = 30.0) -> None:
        self.patience = patience
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.loaded = False
        theirs_in, self.out = os.pipe()
        self.into, theirs_out = os.pipe()
        arguments = shlex.join([command, *FLAGS, f"--user-data-dir={profile}", "about:blank"])
        # The browser reads file descriptor 3 and writes 4.
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {arguments} 3<&{theirs_in} 4>&{theirs_out}"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.received = b""
        self.last = 0
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    # --- the protocol -------------------------------------------------------------------------------------------
    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.last += 1
        message: dict[str, Any] = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive(method)
            if answer.get("id") == self.last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def receive(self, waiting_for: str) -> dict[str, Any]:
        """The next message, after taking note of what it says about the page."""
        end = time.monotonic() + self.patience
        while b"\0" not in self.received:
            ready, _, _ = select.select([self.into], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the browser did not answer within {self.patience} s ({waiting_for})"
            some = os.read(self.into, 1 << 20)
            assert some, f"the browser is gone ({waiting_for})"
            self.received += some
        line, _, self.received = self.received.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self.note(message.get("method", ""), message.get("params", {}))
        return message

    def note(self, event: str, said: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif event == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert", "warning"):
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in said["args"]))
        elif event == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.errors.append(said["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            if not said["request"]["url"].startswith("data:"):
                self.requests.append(said["request"]["url"])
        elif event == "Page.loadEventFired":
            self.loaded = True

    # --- what a test does -----------------------------------------------------------------------------------------
    def open(self, path: Path) -> None:
        """Opens a file as a reader would, from the disk."""
        self.errors.clear()
        self.requests.clear()
        self.loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.loaded:
            self.receive("loading the page")

    def visit(self, address: str) -> None:
        """Opens a web address."""
        self.errors.clear()
        self.requests.clear()
        self.loaded = False
        self.call("Page.navigate", url=address)
        while not self.loaded:
            self.receive("loading the page")

    def press(self, key: str) -> None:
        """Presses a key, wherever the focus is."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        given = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        try:
            answer = self.call("Runtime.evaluate", **given)
        except AssertionError as error:
            if "navigated or closed" not in str(error):
                raise
            answer = self.call("Runtime.evaluate", **given)  # of the page that came in the meantime
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def click(self, selector: str) -> None:
        """Where a finger would: in the middle of the element, whatever lies on top of it there."""
        x, y = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Clicks into a field and types, a key at a time."""
        self.click(selector)
        for character in text:
            self.call("Input.dispatchKeyEvent", type="char", text=character)

    def choose(self, selector: str, value: str) -> None:
        """Picks an option of a list, by its value. (A list's own pop-up cannot be clicked in without a window.)"""
        self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)};"
            " e.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def screenshot(self, path: Path, whole: bool = False) -> None:
        image = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(image))

    def close(self) -> None:
        with contextlib.suppress(AssertionError, OSError):
            self.session = None
            self.call("Browser.close")
        for end in (self.out, self.into):
            os.close(end)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, gone afterwards."""
    command = chromium()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        opened = Browser(command, Path(profile))
        try:
            yield opened
        finally:
            opened.close()
