"""A real headless Chromium, driven over its DevTools socket: open a page, run JavaScript in it, click, type, look."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--window-size=1400,2000", "--remote-debugging-port=0", "--remote-debugging-address=127.0.0.1"),
)


def find_chromium() -> str:
    """Return the browser's program, '' where there is none."""
    return os.environ.get("CHROMIUM", "") or shutil.which("chromium") or shutil.which("chromium-browser") or ""


needs_chromium = pytest.mark.skipif(
    not find_chromium(), reason="no Chromium: apt-get install chromium, or set CHROMIUM to its program"
)


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.call("Page.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return what a DevTools method answers; events between are passed over."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])

    def js(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def sign_in(self, name: str, password: str) -> None:
        """Send a name and a password with every request from now on, as a browser does after it has asked for them."""
        told = base64.b64encode(f"{name}:{password}".encode()).decode()
        self.call("Network.enable")
        self.call("Network.setExtraHTTPHeaders", headers={"Authorization": f"Basic {told}"})

    def wait(self, expression: str, seconds: float = 60.0) -> Any:
        """Return the value of an expression once it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.js(expression)):
            assert time.monotonic() < deadline, f"never true: {expression}\n{self.js('document.body.innerText')[:3000]}"
            time.sleep(0.2)
        return value

    def click(self, element: str) -> None:
        """Click in the middle of the element that an expression gives."""
        self.wait(f"Boolean({element})")
        at = self.js(
            f"(() => {{ const e = {element}; e.scrollIntoView({{block: 'center', behavior: 'instant'}}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def type_over(self, element: str, text: str) -> None:
        """Replace the text of a field, as a person does: click, select all, type."""
        self.click(element)
        self.js(f"{element}.select()")
        self.call("Input.insertText", text=text)

    def picture(self, name: str) -> None:
        """Keep what the window shows where GENAI_TEST_PICTURES names a folder, for people to look at."""
        if folder := os.environ.get("GENAI_TEST_PICTURES", ""):
            Path(folder).mkdir(parents=True, exist_ok=True)
            shown = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
            (Path(folder) / f"{name}.png").write_bytes(shown)


@contextmanager
def browse(folder: Path) -> Iterator[Page]:
    """Give a page of a browser of its own, with an empty profile in a folder; the browser ends with it."""
    profile = folder / "profile"
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [find_chromium(), *FLAGS, f"--user-data-dir={profile}", "about:blank"], stdout=log, stderr=log
        )
    try:
        port_file = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().count("\n")):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "chromium.log").read_text()
            time.sleep(0.1)
        port = port_file.read_text().splitlines()[0]
        with connect(_first_tab(port), max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _first_tab(port: str) -> str:
    """Return the DevTools address of the tab that the browser was started with."""
    import urllib.request

    deadline = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as reply:
            tabs = [tab for tab in json.load(reply) if tab["type"] == "page"]
        if tabs:
            return str(tabs[0]["webSocketDebuggerUrl"])
        assert time.monotonic() < deadline
        time.sleep(0.1)
