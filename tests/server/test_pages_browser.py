"""The chat page in a real browser: a thought that streams and folds, an answer, an error in words, a stop."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.server.chromium import BINARY, Page, chromium
from tests.server.running import running, site

from magister.server.mock import MockChat
from magister.types import ChatRequest, Event, Finish, FinishReason, ThinkingDelta, Usage

pytestmark = pytest.mark.skipif(BINARY is None, reason="needs chromium")

ASK = """(() => {
  document.getElementById('question').value = %r;
  document.getElementById('ask').requestSubmit();
  return true;
})()"""


async def asked(page: Page, text: str) -> None:
    await page.run(ASK % text)


async def kept(page: Page, name: str) -> None:
    """A picture for people to look at, where MAGISTER_PICTURES names a folder."""
    folder = os.environ.get("MAGISTER_PICTURES")
    if folder:
        shot = await page.call("Page.captureScreenshot", format="png")
        (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def test_a_conversation() -> None:
    async def run(base: str) -> None:
        async with chromium() as browser:
            page = await browser.open(f"{base}/")
            await asked(page, "Hello?")
            assert await page.until("document.querySelector('.assistant')?.textContent.endsWith('you?')")
            assert await page.run("document.querySelector('details.thought pre').textContent") == "The user greets."
            assert await page.run("document.querySelector('details.thought').open") is False
            assert str(await page.run("document.querySelector('details.thought summary').textContent")).startswith(
                "Thought for"
            )
            await kept(page, "chat")
            await asked(page, "<b>And</b> again?")
            assert await page.until("document.querySelectorAll('.assistant').length === 2")
            # What people type is text, never markup.
            assert await page.run("document.querySelectorAll('#talk b').length") == 0
            docs = await browser.open(f"{base}/docs")
            assert await docs.run("document.querySelectorAll('details').length") > 10
            await kept(docs, "docs")

    with running(site()) as base:
        asyncio.run(run(base))


class Cut:
    """Ends before its answer, as where the context is full."""

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        yield ThinkingDelta(text="hm", closed=True)
        yield Usage(prompt_tokens=1, completion_tokens=1)
        yield Finish(reason=FinishReason.LENGTH)


def test_an_answer_without_room_is_told_of() -> None:
    async def run(base: str) -> None:
        async with chromium() as browser:
            page = await browser.open(f"{base}/")
            await asked(page, "Hello?")
            assert "no more room" in await page.until("document.querySelector('.wrong')?.textContent")

    with running(site(Cut())) as base:
        asyncio.run(run(base))


def test_a_stop_ends_the_work() -> None:
    async def run(base: str) -> None:
        async with chromium() as browser:
            page = await browser.open(f"{base}/")
            await asked(page, "Hello?")
            await page.until("document.querySelector('details.thought pre')?.textContent.length > 0")
            await page.run("document.getElementById('stop').click()")
            assert await page.until("document.querySelector('.wrong')?.textContent") == "Stopped."

    app = site(MockChat(thinking="word " * 2000, seconds=0.02))
    with running(app) as base:
        asyncio.run(run(base))
        assert not app.house.flights
