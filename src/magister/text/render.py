"""The renderer: a chat request in, a prompt out, by way of mistral-common.

mistral-common is the source of truth for every token; there is no second chat template. In one place its word is not
taken: it strips blanks from the end of an assistant's text where no thought precedes it, and here what was said stays
said, so that a continued message goes on where it stopped and a history is the tokens that were generated. Knows
nothing of models or streams.
"""

from __future__ import annotations

from dataclasses import dataclass

from mistral_common.exceptions import InvalidToolException, InvalidToolSchemaException, MistralCommonException
from mistral_common.protocol.instruct import messages as mistral
from mistral_common.protocol.instruct.chunk import TextChunk
from mistral_common.protocol.instruct.normalize import get_normalizer
from mistral_common.protocol.instruct.request import ChatCompletionRequest, InstructRequest
from mistral_common.protocol.instruct.tool_calls import Tool
from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
from mistral_common.tokens.tokenizers.base import TokenizerVersion

from magister.text.formats import Format, Tags
from magister.text.grammar import AnswerGrammar, answer_grammar
from magister.text.images import DEFAULT_LIMITS, ImageLimits, to_pixels
from magister.text.messages import ChatMessage, check_request, spoken, to_assistant, to_mistral, to_tools
from magister.text.parser import Parser
from magister.text.tokenizer import Tokenizer
from magister.types import ChatRequest, Message, OpenAt, Prompt, Refused, Role, Thinking, ToolMode


@dataclass(frozen=True)
class Renderer:
    """Requests to prompts, tokens to events: the two directions of one format."""

    tokenizer: Tokenizer
    format: Format
    limits: ImageLimits = DEFAULT_LIMITS

    def render(self, request: ChatRequest) -> Prompt:
        """The prompt of a request. Raises `ValueError` or `Refused` with the field that cannot be said."""
        check_request(request, self.tokenizer.version)
        if request.sampling.thinking_tokens is not None and self.format.tags is Tags.TEXT:
            raise Refused("sampling.thinking_tokens", "this model writes its thought as text, so it cannot be cut")
        messages = to_mistral(request, self.format, self.tokenizer.version, self.limits)
        normal = self._checked(messages, to_tools(request))
        try:
            encoded = self.tokenizer.chats.encode_instruct(normal)
        except ValueError as error:
            raise ValueError(f"messages: {error}") from error
        return Prompt(
            ids=tuple(encoded.tokens),
            images=tuple(to_pixels(image) for image in encoded.images),
            open_at=_open_at(request.messages[-1]),
        )

    def grammar(self, prompt: Prompt, request: ChatRequest) -> AnswerGrammar | None:
        """What the answer to a request that was rendered must follow; None where it may be anything."""
        return answer_grammar(request, self.tokenizer, self.format.tags, prompt.open_at)

    def reply(self, message: Message, *, ended: bool = True) -> tuple[int, ...]:
        """The tokens by which a model says an assistant's message; for training and for tests."""
        said = to_assistant(message, self.format.tags, self.tokenizer.version, continued=not ended)
        asked: ChatCompletionRequest[ChatMessage] = ChatCompletionRequest(messages=[said])
        normal = self._normal(asked).messages[-1]
        assert isinstance(normal, mistral.AssistantMessage)
        return tuple(self.tokenizer.chats.encode_assistant_message(normal, is_before_last_user_message=False))

    def parser(self, prompt: Prompt, request: ChatRequest, choice: int) -> Parser:
        """The parser of one choice of a request's reply."""
        return Parser(
            self.tokenizer,
            self.format.tags,
            open_at=prompt.open_at,
            choice=choice,
            salt=(hash(prompt.ids), request.sampling.seed),
            logprobs=request.sampling.logprobs,
            calls=request.tool_choice.mode is not ToolMode.NONE,
        )

    def _checked(self, messages: list[ChatMessage], tools: list[Tool] | None) -> InstructRequest[ChatMessage, Tool]:
        """mistral-common's own checks, then its normal form."""
        request: ChatCompletionRequest[ChatMessage] = ChatCompletionRequest(
            model="magister", messages=messages, tools=tools
        )
        version = TokenizerVersion(self.tokenizer.version)
        try:
            return self._normal(get_validator(version, mode=ValidationMode.serving).validate_request(request))
        except (InvalidToolException, InvalidToolSchemaException) as error:
            raise ValueError(f"tools: {error}") from error
        except MistralCommonException as error:
            raise ValueError(f"messages: {error}") from error

    def _normal(self, request: ChatCompletionRequest[ChatMessage]) -> InstructRequest[ChatMessage, Tool]:
        """mistral-common's normal form, with the blanks that it would strip from an assistant's text."""
        normalizer = get_normalizer(TokenizerVersion(self.tokenizer.version), None)
        normal: InstructRequest[ChatMessage, Tool] = normalizer.from_chat_completion_request(request)
        kept = [
            message.model_copy(update={"content": [TextChunk(text=message.content)]})
            if isinstance(message, mistral.AssistantMessage) and isinstance(message.content, str) and message.content
            else message
            for message in normal.messages
        ]
        return normal.model_copy(update={"messages": kept})


def _open_at(last: Message) -> OpenAt:
    """Where a prompt that ends in this message leaves the model."""
    if last.role is not Role.ASSISTANT:
        return OpenAt.START
    end = spoken(last)[-1]
    return OpenAt.THOUGHT if isinstance(end, Thinking) and not end.closed else OpenAt.ANSWER
