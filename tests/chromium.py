"""A headless Chromium driven through DevTools over two pipes: no driver, no library, no port."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
FLAGS += ["--hide-scrollbars", "--disable-dev-shm-usage"]


class Chromium:
    """One browser with one page; a context manager."""

    def __init__(self, folder, *, timeout=60.0):
        self.timeout, self.folder = timeout, folder
        self.number, self.buffer, self.events, self.session = 0, b"", [], None

    def __enter__(self):
        # The browser reads commands from descriptor 3 and answers on 4; ours are moved away.
        ends = [
            fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
            for pair in (os.pipe(), os.pipe())
            for end in self._closing(pair)
        ]
        there, self.out, self.into, back = ends
        quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
        moved = [(os.POSIX_SPAWN_DUP2, there, 3), (os.POSIX_SPAWN_DUP2, back, 4)]
        profile = f"--user-data-dir={self.folder / 'profile'}"
        command = [CHROMIUM, *FLAGS, "--remote-debugging-pipe", profile, "about:blank"]
        self.process = os.posix_spawn(CHROMIUM, command, os.environ, file_actions=[*quiet, *moved])
        os.close(there)
        os.close(back)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    @staticmethod
    def _closing(pair):
        for end in pair:
            yield end
            os.close(end)

    def __exit__(self, *_):
        self.session = None
        with contextlib.suppress(OSError, TimeoutError):
            self.call("Browser.close")
        until = time.monotonic() + 10
        while os.waitpid(self.process, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.kill(self.process, signal.SIGKILL)
            time.sleep(0.05)
        os.close(self.out)
        os.close(self.into)

    def call(self, method, **params):
        """Send a command and wait for its answer; events on the way are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, event):
        """Wait for an event that was not seen before; it is taken out of the list."""
        while True:
            found = next((e for e in self.events if e.get("method") == event), None)
            if found:
                self.events.remove(found)
                return found["params"]
            self.events.append(self._receive())

    def _receive(self):
        until = time.monotonic() + self.timeout
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.into], [], [], max(0.0, until - time.monotonic()))
            if not ready or not (more := os.read(self.into, 1 << 20)):
                raise TimeoutError("no answer from the browser")
            self.buffer += more
        line, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(line)

    def open(self, path, *, width=1440, height=900, dark=False):
        """Show a file in a window of a given size; below 600, the screen's pixels are doubled."""
        phone = {"mobile": width < 600, "deviceScaleFactor": 2 if width < 600 else 1}
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, **phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events = [e for e in self.events if e.get("method") != "Page.loadEventFired"]
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("Page.loadEventFired")

    def run(self, script):
        """Value of a JavaScript expression."""
        options = {"returnByValue": True, "awaitPromise": True}
        done = self.call("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def press(self, key):
        """Press a key, as a user would."""
        number = {"ArrowLeft": 37, "ArrowRight": 39}[key]
        names = {"key": key, "code": key, "windowsVirtualKeyCode": number}
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **names)

    def complaints(self):
        """What the page wrote to the console, and its exceptions."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [e["params"] for e in self.events if e.get("method") in kinds]

    def screenshot(self, path, *, clip=None):
        """PNG of the whole page, or of ``(x, y, width, height)``."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        x, y, width, height = clip or (0, 0, size["width"], size["height"])
        area = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        made = self.call("Page.captureScreenshot", clip=area, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(made["data"]))

    def print_pdf(self, path):
        """The page on A4, as the print dialogue makes it without backgrounds."""
        made = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
        path.write_bytes(base64.b64decode(made["data"]))
