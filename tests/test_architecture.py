"""The walls of the house: who may import whom, what must stay light, how large things may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "magister"

TABLE: dict[str, tuple[set[str], set[str]]] = {
    # room: (rooms it may import, third parties it may import)
    "types": (set(), {"msgspec"}),
    "text": ({"types"}, {"mistral_common", "cv2", "numpy", "PIL"}),
    "answers": ({"types"}, set()),
    "kernels": (set(), {"torch", "triton"}),
    "model": ({"kernels"}, {"torch", "safetensors"}),
    "engine": ({"types", "model", "kernels", "worker"}, {"torch", "llguidance"}),
    "worker": ({"types"}, {"msgspec"}),
    "chat": ({"types", "text"}, {"msgspec"}),
    "wire": ({"types"}, {"msgspec"}),
    "server": ({"types", "wire"}, {"msgspec", "aiohttp", "jinja2", "prometheus_client"}),
    "tasks": ({"types", "answers"}, set()),
    "evals": ({"types", "tasks"}, set()),
    "train": ({"types", "text", "tasks", "model", "kernels"}, {"torch", "numpy", "rich", "matplotlib"}),
    "cli": (
        {"types", "text", "tasks", "kernels", "model", "engine", "worker", "chat", "wire", "server", "evals", "train"},
        {"torch", "typer", "rich", "msgspec", "uvicorn", "uvloop", "huggingface_hub", "transformers"},
    ),
    "__init__": ({"cli"}, set()),
}
WITHOUT_TORCH = sorted(set(TABLE) - {"kernels", "model", "engine", "train", "cli", "__init__"})

FUNCTION_LINES, FILE_LINES = 60, 400
LONGER: dict[str, str] = {}
"""Files or functions over the budget, each with its reason."""


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        yield room, path, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            if node.module == "magister":
                yield from (f"magister.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_rooms_import_only_what_the_table_allows() -> None:
    faults = []
    for room, path, tree in modules():
        rooms, parties = TABLE[room]
        for name in imports(tree):
            head, _, rest = name.partition(".")
            if head == "magister":
                target = rest.split(".")[0] if rest else "__init__"
                allowed = target == room or target in rooms
            else:
                allowed = head in sys.stdlib_module_names or head in parties
            if not allowed:
                faults.append(f"{path.relative_to(SOURCE)} imports {name}")
    assert not faults


def test_every_room_is_in_the_table() -> None:
    found = {room for room, _, _ in modules()}
    assert found == set(TABLE)


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_light_rooms_stay_light(room: str) -> None:
    names = [
        "magister." + ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for found, path, _ in modules()
        if found == room
    ]
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", ["main", "chat", "batch", "serve", "train"])
def test_commands_look_at_their_usage_before_pytorch_is_there(command: str) -> None:
    code = f"import sys, magister.cli.{command}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_functions_and_files_keep_their_budgets() -> None:
    faults = []
    for _, path, tree in modules():
        name = str(path.relative_to(SOURCE))
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES and name not in LONGER:
            faults.append(f"{name}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                if length > FUNCTION_LINES and f"{name}:{node.name}" not in LONGER:
                    faults.append(f"{name}:{node.name}: {length} lines")
    assert not faults


def test_modules_say_what_they_are() -> None:
    assert [str(path) for _, path, tree in modules() if not ast.get_docstring(tree)] == []
