"""Every block of docs/clients.md runs as it stands; only the port is another."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.server.chromium import BINARY, chromium

NODE = Path(__file__).parent / "node"
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
BLOCKS = re.findall(r"^<!-- run: (\w+) -->\n```\w+\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
SHOULD = {"sh": 2, "python": 5, "node": 6, "html": 1}


def test_every_marked_block_is_found() -> None:
    marks = re.findall(r"<!-- run: (\w+) -->", PAGE.read_text("utf-8"))
    assert [how for how, _ in BLOCKS] == marks
    assert {how: marks.count(how) for how in marks} == SHOULD


@pytest.mark.parametrize(("how", "block"), BLOCKS, ids=[f"{how}-{at}" for at, (how, _) in enumerate(BLOCKS)])
def test_a_block_works(how: str, block: str, nano: str, tmp_path: Path) -> None:
    assert "http://localhost:8080" in block
    code = block.replace("http://localhost:8080", nano.replace("127.0.0.1", "localhost"))
    said = browse(code, tmp_path) if how == "html" else command(how, code)
    assert said.strip()
    if "17 * 24" in code:
        assert re.search(r"4.{0,3}0.{0,3}8", said, re.DOTALL), said


def command(how: str, code: str) -> str:
    """What a program says that is pasted as it is."""
    program = {"sh": "sh", "python": sys.executable, "node": "node"}[how]
    if how == "node" and not (shutil.which("node") and (NODE / "node_modules" / "openai").is_dir()):
        pytest.skip("needs node and npm (Debian: nodejs npm), then `make setup`")
    if how == "sh" and not shutil.which("curl"):
        pytest.skip("needs curl")
    flags = {"sh": ["-c"], "python": ["-c"], "node": ["--input-type=module", "-e"]}[how]
    done = subprocess.run([program, *flags, code], cwd=NODE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert '"error"' not in done.stdout
    return done.stdout


def browse(code: str, folder: Path) -> str:
    """What a page shows that is opened from a file."""
    if BINARY is None:
        pytest.skip("needs a browser (Debian: chromium)")
    file = folder / "page.html"
    file.write_text(code, encoding="utf-8")

    async def look() -> str:
        async with chromium() as browser:
            page = await browser.open(file.as_uri())
            return str(await page.until("document.body.innerText.trim()"))

    return asyncio.run(look())
