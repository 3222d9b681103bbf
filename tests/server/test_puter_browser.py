"""Pages in a real browser: the seed with its script's origin changed, the sign-in window, the published client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.chromium import BINARY, Browser, chromium
from tests.server.puter_world import World, pages, serving

from magister.server.guests import GuestTokens

pytestmark = pytest.mark.skipif(BINARY is None, reason="needs chromium")

CLIENT = Path(__file__).parent / "node" / "node_modules" / "@heyputer" / "puter.js" / "dist" / "puter.cjs"

SEED = """<html>
<body>
    <script src="{base}/puter/v2/"></script>
    <script>
        puter.ai.chat("Explain quantum computing in simple terms", {{
            model: "mistralai/magistral-small-2509"
        }}).then(response => {{
            document.body.innerHTML = response.message.content;
        }});
    </script>
</body>
</html>"""
ANSWER = "schön: Explain quantum computing in simple terms"


@pytest.fixture(scope="module")
def world() -> World:
    return World("null")


@pytest.fixture(scope="module")
def base(world: World) -> Iterator[str]:
    with serving(world) as url:
        yield url


def browse(act: Callable[[Browser], Awaitable[None]]) -> None:
    async def run() -> None:
        async with chromium() as browser:
            await act(browser)

    asyncio.run(run())


def test_the_seed_from_a_file_and_everything_the_script_offers(base: str, tmp_path: Path) -> None:
    seed, bare = tmp_path / "seed.html", tmp_path / "bare.html"
    seed.write_text(SEED.format(base=base), encoding="utf-8")
    bare.write_text(f'<body><script src="{base}/puter/v2/"></script></body>', encoding="utf-8")

    async def act(browser: Browser) -> None:
        page = await browser.open(seed.as_uri())
        assert await page.until("document.body.innerText.startsWith('sch') && document.body.innerText") == ANSWER
        page = await browser.open(bare.as_uri())
        said = await page.run(OFFERED)
        assert said["origin"] == base
        assert said["whole"] == ["schön: hi", "schön: hi", "hm: hi"]
        assert (said["types"], said["text"]) == (["reasoning", "text", "usage"], "schön: hi")
        assert said["image"] == "schön: look with an image"
        assert said["blob"] == "schön: look with an image with an image"
        assert said["test"] is True
        assert said["call"] == ["weather", {"city": "Köln"}]
        assert said["models"] == ["nano"]
        assert said["nobody"] == []
        assert (said["error"]["code"], said["plain"]) == ("bad_request", True)
        assert said["failed"] == ["text", "error", "told to fail"]

    browse(act)


OFFERED = """(async () => {
    const said = { origin: puter.APIOrigin };
    const whole = await puter.ai.chat("hi", { model: "nano", temperature: 0 });
    said.whole = [whole.message.content, `${whole}`, whole.message.reasoning];
    said.types = []; said.text = "";
    for await (const part of await puter.ai.chat("hi", { stream: true })) {
        if (said.types.at(-1) !== part.type) said.types.push(part.type);
        said.text += part?.text ?? "";
    }
    const url = "data:image/png;base64,iVBORw0KGgo=";
    said.image = `${await puter.ai.chat("look", url, { model: "nano" })}`;
    const blob = await (await fetch(url)).blob();
    said.blob = `${await puter.ai.chat("look", [blob, url])}`;
    said.test = (await puter.ai.chat("hi", true, { model: "nano" })).test_mode;
    const tools = [{ type: "function", function: { name: "weather" } }];
    for await (const part of await puter.ai.chat("call", { tools, stream: true }))
        if (part.type === "tool_use") said.call = [part.name, part.input];
    said.models = (await puter.ai.listModels()).map((model) => model.id);
    said.nobody = await puter.ai.listModels("nobody");
    try { await puter.ai.chat("hi", { temperature: 9 }); }
    catch (error) { said.error = error; said.plain = Object.getPrototypeOf(error) === Object.prototype; }
    said.failed = [];
    try { for await (const part of await puter.ai.chat("fail", { stream: true })) said.failed.push(part.type); }
    catch (error) { said.failed.push(error.message); }
    said.failed = said.failed.filter((one) => one !== "reasoning");
    return said;
})()"""


def test_a_page_that_nobody_named_asks_the_person(world: World, base: str) -> None:
    async def act(browser: Browser) -> None:
        with serving(pages(seed_html=SEED.format(base=base))) as site:
            page = await browser.open(f"{site}/seed.html")
            await page.until("document.querySelector('#puter-sign-in button') !== null")
            before = len(world.chat.asked)
            await page.run("document.querySelector('#puter-sign-in button').click()")
            await allow(browser, f"Pages of {site}.")
            assert await page.until("document.body.innerText.startsWith('sch') && document.body.innerText") == ANSWER
            assert len(world.chat.asked) == before + 1
            assert world.guests.origin_of(await page.run("puter.authToken")) == site

    browse(act)


async def allow(browser: Browser, who: str) -> None:
    """A person says yes in the window."""
    window = await browser.window("/action/sign-in")
    assert await window.until("document.getElementById('who')?.textContent") == who
    await window.until("!document.getElementById('yes').disabled")
    await window.run("document.getElementById('yes').click()")


@pytest.mark.skipif(not CLIENT.is_file(), reason="needs `npm ci` in tests/server/node")
def test_the_published_client_signs_in_and_chats(world: World, base: str) -> None:
    page_of = f"""<!doctype html><body>
        <script>globalThis.PUTER_API_ORIGIN = globalThis.PUTER_ORIGIN = "{base}";
        globalThis.puter_socket_enabled = false;</script>
        <script src="client.js"></script></body>"""

    async def act(browser: Browser) -> None:
        files: dict[str, Any] = {"page_html": page_of, "client_js": CLIENT.read_text(encoding="utf-8")}
        with serving(pages(**files)) as site:
            page = await browser.open(f"{site}/page.html")
            await page.run("puter.auth.signIn().then((said) => { globalThis.said = said; }); 1")
            await allow(browser, f"Pages of {site}.")
            assert await page.until("globalThis.said?.username") == "guest"
            assert await page.run("puter.ai.chat('hi', { model: 'nano' }).then(String)") == "schön: hi"
            stream = "(async () => { let text = ''; for await (const part of await puter.ai.chat('hi', " \
                "{ stream: true })) text += part?.text ?? ''; return text; })()"  # fmt: skip
            assert await page.run(stream) == "schön: hi"
            assert await page.run("puter.ai.listModels().then((models) => models.length)") == 1
            assert (await page.run("puter.auth.getUser()"))["username"] == "guest"
            assert world.guests.origin_of(await page.run("puter.authToken")) == site
            # A token of before, as after a new signing key: the client asks its person again, and goes on.
            await page.run(f"puter.setAuthToken({GuestTokens(b'k' * 32).issue(site)!r}); 1")
            await page.run("puter.ai.chat('hi').catch((error) => { globalThis.told = error; }); 1")
            await allow(browser, f"Pages of {site}.")
            assert (await page.until("globalThis.told"))["status"] == 401
            assert await page.run("puter.ai.chat('hi').then(String)") == "schön: hi"
            assert world.guests.origin_of(await page.run("puter.authToken")) == site

    browse(act)


def test_refusing_is_an_answer_too(base: str) -> None:
    async def act(browser: Browser) -> None:
        with serving(pages(page_html=f'<body><script src="{base}/puter/v2/"></script></body>')) as site:
            page = await browser.open(f"{site}/page.html")
            await page.run("puter.auth.signIn().catch((error) => { globalThis.told = error; }); 1")
            window = await browser.window("/action/sign-in")
            await window.until("!document.getElementById('yes').disabled")
            await window.run("document.getElementById('no').click()")
            assert (await page.until("globalThis.told"))["error"] in ("auth_canceled", "auth_window_closed")

    browse(act)


def test_a_programs_window_sends_its_token_back(world: World, base: str) -> None:
    async def act(browser: Browser) -> None:
        with serving(pages(**{"": "<p>done"})) as program:
            page = await browser.open(f"{base}/?action=authme&redirectURL={program}")
            assert await page.until("document.getElementById('who').textContent")
            await page.run("document.getElementById('yes').click()")
            token = await page.until("new URLSearchParams(location.search).get('token')")
            assert world.guests.origin_of(token) == program

    browse(act)
