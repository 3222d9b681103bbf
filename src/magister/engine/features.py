"""Images -> rows of features, each image once however many sequences show it, and only while one of them needs it.

Knows sequences and the vision network, and not who splices the rows in.

Shapes: n image tokens, d decoder width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from magister.engine.sequence import Span
from magister.model.vision import Vision
from magister.types import Pixels


class Part(NamedTuple):
    """The image tokens of one span."""

    offsets: list[int]
    """Where they stand, counted from the span's start."""
    rows_nd: Tensor
    """Their features."""


class Features:
    """The features of images in prompts that are being computed."""

    def __init__(self, vision: Vision) -> None:
        self._vision = vision
        self._rows: dict[bytes, Tensor] = {}
        self._users: dict[bytes, set[int]] = {}

    @property
    def remembered(self) -> set[int]:
        """Numbers of the sequences for which features are held."""
        return set().union(*self._users.values())

    def within(self, span: Span) -> Part | None:
        """Features for a span; None where it has no image tokens. Lets go of them where it ends the prompt."""
        sequence = span.sequence
        if sequence.places is None or span.start >= sequence.prompt_length:
            return None
        image_id = self._vision.config.image_token_id
        offsets: list[int] = []
        rows: list[Tensor] = []
        stop = min(span.stop, sequence.prompt_length)
        for place in sequence.places.within(span.start, stop):
            first, last = max(place.first, span.start), min(place.last + 1, stop)
            mine = [position for position in range(first, last) if sequence.ids[position] == image_id]
            before = sequence.ids[place.first : first].count(image_id)
            rows.append(self._of(place.name, sequence.images[place.image], sequence.number)[before:][: len(mine)])
            offsets += [position - span.start for position in mine]
        if stop == sequence.prompt_length:
            self.forget([sequence.number])
        return Part(offsets, torch.cat(rows)) if offsets else None

    def forget(self, numbers: Iterable[int]) -> None:
        """Drops what is held for these sequences and nobody else."""
        for number in numbers:
            for name in [name for name, users in self._users.items() if number in users]:
                self._users[name].discard(number)
                if not self._users[name]:
                    del self._users[name], self._rows[name]

    def clear(self) -> None:
        """Drops everything, since the network has changed; what is needed again is computed again."""
        self._rows, self._users = {}, {}

    def _of(self, name: bytes, image: Pixels, number: int) -> Tensor:
        if name not in self._rows:
            weight = self._vision.vision_encoder.patch_conv.weight
            self._rows[name] = self._vision([_pixels(image, weight.device)])[0]
            self._users[name] = set()
        self._users[name].add(number)
        return self._rows[name]


def _pixels(image: Pixels, device: torch.device) -> Tensor:
    # A bytearray, because torch warns of tensors over memory that may not be written.
    flat = torch.frombuffer(bytearray(image.data), dtype=torch.float32)
    return flat.view(image.channels, image.height, image.width).to(device)
