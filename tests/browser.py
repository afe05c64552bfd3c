"""A real Chromium, driven over its DevTools port."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable() -> str | None:
    """The first browser that this machine has."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a browser."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            page = next(p for p in json.load(answer) if p["type"] == "page")
        self.socket = websocket.create_connection(
            page["webSocketDebuggerUrl"], timeout=60, suppress_origin=True
        )
        self.sent, self.events = 0, []
        for part in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{part}.enable")

    def send(self, method: str, **parameters) -> dict:
        """Send a command and wait for its answer; keep what else is told."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": parameters}
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.sent:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def run(self, script: str):
        """The value of a JavaScript expression, awaited."""
        answer = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 20.0) -> float:
        """Wait until an expression is true; how long it took."""
        begun = time.perf_counter()
        while not self.run(script):
            assert time.perf_counter() - begun < seconds, f"never came: {script}"
            time.sleep(0.02)
        return time.perf_counter() - begun

    def open(self, url: str) -> float:
        """Open a page with an explorer; seconds until it is there."""
        self.events.clear()
        begun = time.perf_counter()
        self.send("Page.navigate", url=url)
        self.wait("document.querySelector('[data-ready]') !== null")
        return time.perf_counter() - begun

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Of the window; and what the system prefers."""
        window = {"width": width, "height": height, "deviceScaleFactor": 1.5}
        self.send("Emulation.setDeviceMetricsOverride", mobile=False, **window)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def drag(self, path: list[tuple[float, float]]) -> None:
        """Press the mouse at the first point, move it through all, let go."""
        for n, (x, y) in enumerate(path):
            place = {"x": x, "y": y, "button": "left", "buttons": int(n > 0)}
            self.send("Input.dispatchMouseEvent", type="mouseMoved", **place)
            if n == 0:
                kind = "mousePressed"
                self.send("Input.dispatchMouseEvent", type=kind, clickCount=1, **place)
        kind = "mouseReleased"
        self.send("Input.dispatchMouseEvent", type=kind, clickCount=1, **place)

    def move(self, x: float, y: float) -> None:
        """Point at a place."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def complaints(self) -> list[str]:
        """Errors since the page was opened, and what it asked a network for."""
        said = []
        for event in self.events:
            report = json.dumps(event["params"])
            entry = event["params"].get("entry", {})
            failed = event["method"] == "Runtime.exceptionThrown"
            if failed or entry.get("level") == "error":
                said.append(report)
            if event["method"] == "Network.requestWillBeSent":
                url = event["params"]["request"]["url"]
                said += [] if url.startswith(("file:", "data:", "blob:")) else [url]
        return said


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser for as long as the block lasts; it gets no network."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    flags += ["--remote-debugging-port=0", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command = [str(executable()), *flags, f"--user-data-dir={folder}", "about:blank"]
    group = {} if os.name == "nt" else {"start_new_session": True}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, **group
    )
    assert process.stderr is not None
    try:
        lines = (re.search(r"ws://[^/]+:(\d+)/", line) for line in process.stderr)
        port = int(next(filter(None, lines))[1])
        browser = Browser(port)
        yield browser
        with contextlib.suppress(Exception):
            browser.send("Browser.close")
        browser.socket.close()
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stderr.close()
