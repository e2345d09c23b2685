"""A real Chromium without a window, driven over the DevTools protocol through a pair of pipes: no driver, no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
# Named keys as DevTools wants them; a letter's are made from itself.
CODES = {"ArrowLeft": 37, "ArrowRight": 39, "Enter": 13, "Escape": 27}


def installed() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page. `go`, `js`, `key`, `type`, `until`, `picture`."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1280, 800), dark: bool = False, touch: bool = False):
        to_browser, from_us = os.pipe()
        from_browser, to_us = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (to_browser, to_us)]  # out of the way of 3 and 4
        command = [
            installed(), "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}",
            "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--disable-background-networking",
            "--mute-audio", "about:blank",
        ]  # fmt: skip

        def place() -> None:  # the browser reads descriptor 3 and writes descriptor 4
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, pass_fds=(3, 4), preexec_fn=place, start_new_session=True, **quiet)
        for end in (to_browser, to_us, *ends):
            os.close(end)
        self._out, self._in = from_us, from_browser
        self._buffer, self._number, self._session = b"", 0, None
        self.errors: list[str] = []  # uncaught exceptions and refused loads (CSP) of the page
        target = next(found for found in self._call("Target.getTargets")["targetInfos"] if found["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=touch)
        self._call("Emulation.setTouchEmulationEnabled", enabled=touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        touching = [{"name": "hover", "value": "none"}, {"name": "pointer", "value": "coarse"}] if touch else []
        self._call("Emulation.setEmulatedMedia", features=[scheme, *touching])

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _call(self, method: str, **parameters) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **({"sessionId": self._session} if self._session else {})}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                data = os.read(self._in, 1 << 20)
                assert data, "the browser has ended"
                self._buffer += data
            raw, self._buffer = self._buffer.split(b"\0", 1)
            answer = json.loads(raw)
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(answer["params"]["exceptionDetails"]))
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.errors.append(answer["params"]["entry"]["text"])
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def go(self, url: str) -> None:
        self._call("Page.navigate", url="about:blank")  # an address that differs after the # alone would load nothing
        self._call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def js(self, expression: str):
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 20):
        deadline = time.monotonic() + seconds
        while not (value := self.js(expression)):
            assert time.monotonic() < deadline, f"never came true: {expression}; the page says: {self.js('document.body.innerText')}"
            time.sleep(0.03)
        return value

    def key(self, name: str, place: str = "") -> None:
        """Press and let go of one key: a letter, a digit, or one of CODES. place: where it is on the keyboard ("KeyT"), whatever it writes."""
        code = CODES.get(name, ord(name.upper()[0]))
        pressed = {"key": name, "windowsVirtualKeyCode": code, **({"text": name} if len(name) == 1 else {"text": "\r"} if name == "Enter" else {})}
        self._call("Input.dispatchKeyEvent", type="keyDown", code=place, **pressed)
        self._call("Input.dispatchKeyEvent", type="keyUp", code=place, key=name, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        self._call("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))
