"""`magister chat`: one question, a conversation, or standard input; on a terminal, a pipe, or as JSON.

Imports nothing heavy before the usage is known to be right: PyTorch takes seconds.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.markup import escape

from magister.cli.flags import Flags
from magister.cli.places import find
from magister.cli.view import View
from magister.types import (
    ChatRequest,
    Choice,
    Event,
    Image,
    Message,
    Part,
    Reply,
    SystemPrompt,
    Text,
    assistant,
    fold,
    system,
    user,
)

if TYPE_CHECKING:
    from magister.cli.face import LocalModel, SamplingOptions

LEAVE = frozenset({"exit", "quit", "/exit", "/quit"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """The command line, as typed."""

    prompt: str | None
    model: str
    images: tuple[Path, ...]
    system: str | None
    replace_system: bool
    temperature: float | None
    top_p: float | None
    seed: int | None
    max_tokens: int | None
    hide_thinking: bool
    json: bool
    placement: Flags


def run(options: ChatOptions) -> int:
    """Answer; returns the exit code."""
    fault = _usage_fault(options)
    if fault:
        print(f"magister chat: {fault}", file=sys.stderr)
        return 2
    prompt = options.prompt
    talk = prompt is None and _terminal()
    if prompt is None and not talk:
        if sys.stdin is None:
            print("magister chat: there is no prompt and no standard input", file=sys.stderr)
            return 2
        try:
            prompt = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            print(f"magister chat: standard input is not UTF-8 (byte {error.start})", file=sys.stderr)
            return 2
        if not prompt.strip():
            print("magister chat: standard input is empty", file=sys.stderr)
            return 2
    with _loaded(options) as model:
        fault = _without_effect(model, options)
        if fault:
            print(f"magister chat: {fault}", file=sys.stderr)
            return 2
        _tell(model)
        if talk:
            return _converse(model, options)
        assert prompt is not None
        messages = [*_opening(options), user(*_images(options), Text(prompt))]
        reply, code = _answer(model, messages, options)
        if options.json:
            print(_as_json(model.name, reply, thinking=not options.hide_thinking).decode())
        return code


def _loaded(options: ChatOptions) -> LocalModel:
    find(options.model)  # An unknown name is told before PyTorch is there.
    # What modules make stays: looking through it for garbage again and again is a seventh of the start, for nothing.
    gc.disable()
    try:
        from magister.cli import compose, face
        from magister.cli.placement import Placement
    finally:
        gc.enable()

    return face.LocalModel(compose.load(options.model, Placement(**options.placement), own_process=True))


def _usage_fault(options: ChatOptions) -> str | None:
    if options.temperature is not None and not 0 <= options.temperature < float("inf"):
        return f"--temperature must be 0 or more, got {options.temperature}"
    if options.top_p is not None and not 0 < options.top_p <= 1:
        return f"--top-p must be above 0 and at most 1, got {options.top_p}"
    if options.max_tokens is not None and options.max_tokens < 1:
        return f"--max-tokens must be at least 1, got {options.max_tokens}"
    if options.prompt is not None and not options.prompt.strip():
        return "the prompt is empty"
    if options.replace_system and options.system is None:
        return "--replace-system needs --system"
    for path in options.images:
        if not path.is_file():
            return f"--image: there is no file {path}"
    if options.json and options.prompt is None and _terminal():
        return "--json needs a prompt, as an argument or on standard input"
    return None


def _terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _mode(options: ChatOptions) -> SystemPrompt:
    return SystemPrompt.REPLACE if options.replace_system else SystemPrompt.ADD


def _without_effect(model: LocalModel, options: ChatOptions) -> str | None:
    """An option that could change nothing, since the answer is greedy."""
    temperature = model.loaded.form.sampling.temperature if options.temperature is None else options.temperature
    if temperature == 0 and options.top_p not in (None, 1.0):
        return f"--top-p {options.top_p} has no effect at temperature 0; add --temperature"
    return None


def _tell(model: LocalModel) -> None:
    """What a person would want to know before waiting."""
    if model.loaded.kernels.fallback:
        print(f"magister: {model.loaded.kernels.description}", file=sys.stderr)
    made_for = model.loaded.form.context
    if model.loaded.context < made_for:
        print(f"magister: room for {model.loaded.context:,} tokens here, the model takes {made_for:,}", file=sys.stderr)


def _opening(options: ChatOptions) -> list[Message]:
    return [] if options.system is None else [system(options.system)]


def _images(options: ChatOptions) -> list[Part]:
    return [Image(path.read_bytes()) for path in options.images]


def _converse(model: LocalModel, options: ChatOptions) -> int:
    console = Console()
    console.print(f"[bold]{escape(model.name)}[/bold]  {escape(model.loaded.form.description)}")
    console.print("[dim]Ask away. An empty line or Ctrl-D leaves.[/dim]")
    opening, turns, pictures = _opening(options), _NO_TURNS, _images(options)
    while True:
        try:
            line = console.input("\n[bold cyan]> [/bold cyan]").strip()
        except EOFError:
            return 0
        if not line or line in LEAVE:
            return 0
        asked = user(*pictures, Text(line))
        try:
            kept = _newest(model, opening, turns, asked, _mode(options))
            if len(kept) < len(turns):
                console.print(f"[dim](the oldest {len(turns) - len(kept)} of {len(turns)} turns left out)[/dim]")
            turns = kept
            reply, code = _answer(model, [*opening, *_flat(turns), asked], options)
        except ValueError as error:
            # A question too long, say, must not end the conversation.
            console.print(f"[red]{escape(str(error))}[/red]")
            continue
        if code == 130:
            return code
        if reply.message.parts:
            # What was shown is in the turn now; a question that failed has shown nothing.
            turns, pictures = (*turns, (asked, reply.message)), []


Turns = tuple[tuple[Message, Message], ...]
_NO_TURNS: Turns = ()


def _flat(turns: Turns) -> list[Message]:
    return [message for turn in turns for message in turn]


def _newest(model: LocalModel, opening: list[Message], turns: Turns, asked: Message, mode: SystemPrompt) -> Turns:
    """The newest turns that, with the question, leave three quarters of the context to the answer."""
    while turns:
        request = ChatRequest(messages=(*opening, *_flat(turns), asked), system_prompt=mode)
        if len(model.loaded.chat.renderer.render(request).ids) <= model.loaded.context // 4:
            break
        turns = turns[1:]
    return turns


def _answer(model: LocalModel, messages: list[Message], options: ChatOptions) -> tuple[Reply, int]:
    """Stream one answer to the terminal; the reply is what came until the end or Ctrl-C."""
    given: SamplingOptions = {}
    if options.temperature is not None:
        given["temperature"] = options.temperature
    if options.top_p is not None:
        given["top_p"] = options.top_p
    if options.max_tokens is not None:
        given["max_tokens"] = options.max_tokens
    if options.seed is not None:
        given["seed"] = options.seed
    events: list[Event] = []
    view = View(shown=not options.json, thoughts=not options.hide_thinking)
    stream = model.stream(messages, system_prompt=_mode(options), **given)
    code = 0
    try:
        with view:
            for event in stream:
                events.append(event)
                view.show(event)
    except KeyboardInterrupt:
        code = 130
    finally:
        stream.close()
    reply = fold(events)
    errors = [choice.error for choice in reply.choices if choice.error]
    if errors:
        raise RuntimeError(errors[0])
    return reply, code


def _as_json(name: str, reply: Reply, *, thinking: bool) -> bytes:
    choice = reply.choices[0] if reply.choices else Choice(message=assistant())
    usage = choice.usage
    shown: dict[str, Any] = {
        "model": name,
        **({"thinking": choice.message.thinking} if thinking else {}),
        "answer": choice.message.text,
        "finish_reason": choice.finish,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "thinking_tokens": usage.thinking_tokens,
            "completion_tokens": usage.completion_tokens,
        },
        "timings": msgspec.to_builtins(usage.timings),
    }
    return msgspec.json.encode(shown)
