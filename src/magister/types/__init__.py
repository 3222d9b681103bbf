"""The vocabulary: every value that passes between rooms, and the sockets they pass through.

Frozen msgspec structs only. Imports nothing of Magister and no torch.
"""

from magister.types.errors import Busy, Refused, TooLong, Upstream
from magister.types.events import (
    Annotation,
    Choice,
    Event,
    EventToken,
    Finish,
    Reply,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
    collect,
    fold,
)
from magister.types.parts import (
    Image,
    Message,
    Part,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    assistant,
    system,
    user,
)
from magister.types.requests import ChatRequest, Effort, JsonFormat, SystemPrompt, Tool, ToolChoice, ToolMode
from magister.types.sockets import ChatModel, TokenModel, Updatable
from magister.types.tokens import Chunk, FinishReason, OpenAt, Pixels, Prompt, Sampling, Timings, TokenLogprob

__all__ = [
    "Annotation",
    "Busy",
    "ChatModel",
    "ChatRequest",
    "Choice",
    "Chunk",
    "Effort",
    "Event",
    "EventToken",
    "Finish",
    "FinishReason",
    "Image",
    "JsonFormat",
    "Message",
    "OpenAt",
    "Part",
    "Pixels",
    "Prompt",
    "Refused",
    "Reply",
    "Role",
    "Sampling",
    "SystemPrompt",
    "Text",
    "TextDelta",
    "Thinking",
    "ThinkingDelta",
    "Timings",
    "TokenLogprob",
    "TokenModel",
    "TooLong",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolMode",
    "ToolResult",
    "Updatable",
    "Upstream",
    "Usage",
    "assistant",
    "collect",
    "fold",
    "system",
    "user",
]
