"""Just enough of the DevTools protocol to open a page in headless Chromium and see all that it does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium")
PATIENCE_S = 40.0
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--remote-debugging-port=0", "--force-color-profile=srgb", "about:blank"),
)


class Browser:
    """One page: what it asked for, what it complained of, and its insides."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        """Console errors and warnings, exceptions, violations of the content security policy."""

    async def listen(self) -> None:
        """Take in what the browser says, until it ends."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            else:
                self._take(said["method"], said["params"])

    def _take(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params["exceptionDetails"])[:2000])
            case "Runtime.consoleAPICalled" if params["type"] in {"error", "warning", "assert"}:
                self.complaints.append(json.dumps(params["args"])[:2000])
            case "Log.entryAdded" if params["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    async def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Given a command, return its result."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE_S):
            said = await answer
        assert "error" not in said, (method, said)
        result: dict[str, Any] = said["result"]
        return result

    async def open(self, url: str) -> None:
        """Load a page."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.do(f"{domain}.enable")
        self._loaded.clear()
        await self.do("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE_S):
            await self._loaded.wait()

    async def value(self, script: str) -> Any:
        """Given an expression, return its value in the page."""
        told = await self.do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, script: str, *, within: float = PATIENCE_S) -> Any:
        """Wait until an expression is true in the page, and return its value. One that throws is not true yet."""
        end = time.monotonic() + within
        while not (
            found := await self.value(f"(() => {{ try {{ return {script} }} catch {{ return null }} }})()")
        ):
            assert time.monotonic() < end, f"not within {within:g} s: {script}; {self.complaints}"
            await asyncio.sleep(0.05)
        return found

    async def press(self, key: str) -> None:
        """Press a key that writes a letter, or a named one."""
        text = {"text": key} if len(key) == 1 else {}
        code = {"Enter": 13, "Escape": 27, "Tab": 9}.get(key, 0)
        if key == "Enter":
            text = {"text": "\r"}
        for kind in ("keyDown", "keyUp"):
            await self.do(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )

    async def picture(self, file: Path, *, width: int, height: int, dark: bool) -> None:
        """Write what is seen as PNG."""
        await self.do(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        await self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        await asyncio.sleep(0.2)  # two frames, which the protocol has no event for
        told = await self.do("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(told["data"]))


@contextlib.asynccontextmanager
async def browser(folder: Path, *before: str) -> AsyncIterator[Browser]:
    """Run Chromium with its files in ``folder`` while the context lasts. ``before``: a command that runs it."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        *(*before, CHROMIUM, f"--user-data-dir={folder}", *OPTIONS),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _port(folder, process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                (page,) = [one for one in await answer.json() if one["type"] == "page"]
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=64 << 20) as socket:
                made = Browser(socket)
                listening = asyncio.create_task(made.listen())
                try:
                    yield made
                finally:
                    listening.cancel()
                    await asyncio.gather(listening, return_exceptions=True)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _port(folder: Path, process: asyncio.subprocess.Process) -> int:
    end = time.monotonic() + PATIENCE_S
    told = folder / "DevToolsActivePort"
    while not (told.exists() and told.read_text().count("\n")):
        assert process.returncode is None, "chromium ended"
        assert time.monotonic() < end, "chromium does not tell its port"
        await asyncio.sleep(0.05)
    return int(told.read_text().split()[0])
