"""Messages to tokens and tokens to events: what lies between a chat model and a token model. No torch."""

from magister.text.formats import Format, Tags, detect_format, load_format
from magister.text.images import ImageLimits
from magister.text.parser import Parser
from magister.text.render import Renderer
from magister.text.tokenizer import TekkenPlan, Tokenizer, load_tokenizer, make_tokenizer, write_tekken

__all__ = [
    "Format",
    "ImageLimits",
    "Parser",
    "Renderer",
    "Tags",
    "TekkenPlan",
    "Tokenizer",
    "detect_format",
    "load_format",
    "load_tokenizer",
    "make_tokenizer",
    "write_tekken",
]
