"""Chromium without a screen, over its DevTools protocol: pages, clicks that count as a person's, windows they open."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-dev-shm-usage", "--disable-component-update", "--disable-extensions", "--remote-debugging-port=0",
)  # fmt: skip


class Page:
    """One window."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        async with asyncio.timeout(30):
            while True:
                said = await self._socket.receive_json()
                if said.get("id") == self._number:
                    assert "error" not in said, said["error"]
                    result: dict[str, Any] = said["result"]
                    return result

    async def run(self, script: str) -> Any:
        """What a script's promise gives; it runs as if a person had just clicked."""
        said = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def until(self, script: str) -> Any:
        """What a script gives, once that is something."""
        async with asyncio.timeout(30):
            while not (found := await self.run(script)):
                await asyncio.sleep(0.05)
        return found


class Browser:
    """One browser with a profile of its own."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session, self._base = session, f"http://127.0.0.1:{port}"

    async def open(self, url: str) -> Page:
        async with self._session.put(f"{self._base}/json/new?{quote(url, safe='')}") as answer:
            page = await self._attach(await answer.json())
        await page.until("document.readyState === 'complete' && location.href !== 'about:blank'")
        return page

    async def window(self, part: str) -> Page:
        """The window whose address has this in it, once it is there."""
        async with asyncio.timeout(30):
            while True:
                async with self._session.get(f"{self._base}/json/list") as answer:
                    found = [one for one in await answer.json() if part in one["url"] and one["type"] == "page"]
                if found:
                    page = await self._attach(found[0])
                    await page.until("document.readyState === 'complete' && location.href !== 'about:blank'")
                    return page
                await asyncio.sleep(0.05)

    async def _attach(self, target: dict[str, Any]) -> Page:
        return Page(await self._session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0))


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser until the block ends."""
    assert BINARY is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [BINARY, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            told = Path(profile) / "DevToolsActivePort"
            async with asyncio.timeout(60):
                while not (told.is_file() and told.read_text()):
                    await asyncio.sleep(0.05)
            async with aiohttp.ClientSession() as session:
                yield Browser(session, int(told.read_text().split()[0]))
        finally:
            process.terminate()
            process.wait(10)
