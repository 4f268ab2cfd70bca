"""The noise of a fit's steps: every draw a function of the fit's seed, the step, and the draw's place in the step.

So a fit's draws do not depend on its lane, on the lanes beside it, or on how many steps are filled at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sweepvi.engine.lanes.philox import WORD, Words, philox

Kind: TypeAlias = Literal["normal", "uniform"]


@dataclass(frozen=True)
class Draw:
    """One call for random numbers in a step: standard normal, or uniform over the open interval (0, 1)."""

    kind: Kind
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """How many numbers it takes."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Sort:
    """Draws that are filled together."""

    kind: Kind
    dtype: torch.dtype

    @property
    def per_block(self) -> int:
        """Numbers that four random words give."""
        return 2 if self.dtype == torch.float64 else 4


class NoiseLayout:
    """Where the numbers of each draw of a step lie, in one row for each sort of draws.

    Args:
        draws: of a step, in the order in which the program makes them.

    """

    def __init__(self, draws: Sequence[Draw]) -> None:
        self.draws = tuple(draws)
        self.places: list[tuple[Sort, slice]] = []
        """Of each draw: its sort, and its part of the row."""
        self._blocks: dict[Sort, list[tuple[int, int]]] = {}
        for number, draw in enumerate(self.draws):
            sort = Sort(draw.kind, draw.dtype)
            blocks = self._blocks.setdefault(sort, [])
            start = len(blocks) * sort.per_block
            self.places.append((sort, slice(start, start + draw.size)))
            blocks += [(number, block) for block in range(-(-draw.size // sort.per_block))]

    def filled(self, seeds: Tensor, steps: Tensor, stream: int = 0) -> dict[Sort, Tensor]:
        """The noise of several steps of several fits.

        Args:
            seeds: int64, shape [K], at least 0.
            steps: int64, shape [T], from 0 to 2³² − 1.
            stream: 0 to 2³² − 1; numbers of different streams have nothing to do with each other.

        Returns:
            By sort, shape [T, K, numbers]; see ``places``.

        """
        key = (seeds & WORD)[:, None], (seeds >> 32 & WORD)[:, None]
        found = {}
        for sort, blocks in self._blocks.items():
            number, block = torch.tensor(blocks, device=seeds.device).reshape(-1, 2).unbind(1)
            words = philox((block, number, steps[:, None, None], torch.full_like(block, stream)), key)
            numbers = _NUMBERS[sort.kind, sort.dtype == torch.float64](words)
            found[sort] = torch.stack(numbers, -1).flatten(-2).to(sort.dtype)
        return found

    def of_lane(self, noise: Mapping[Sort, Tensor]) -> list[Tensor]:
        """The draws in their shapes: from the rows of one lane at one step, shape [numbers] each."""
        return [
            noise[sort][place].view(draw.shape) for draw, (sort, place) in zip(self.draws, self.places, strict=True)
        ]


def _uniforms32(words: Words) -> list[Tensor]:
    # 23 bits: with more, the largest would round to 1.
    return [((word >> 9).float() + 0.5) * 2.0**-23 for word in words]


def _uniforms64(words: Words) -> list[Tensor]:
    return [_in_double(words[0], words[1]), _in_double(words[2], words[3])]


def _normals32(words: Words) -> list[Tensor]:
    # The radius needs all 32 bits, or tails would end at 5.6 standard deviations; here they do at 6.8.
    return [
        *_box_muller((words[0].float() + 0.5) * 2.0**-32, words[1].float() * 2.0**-32),
        *_box_muller((words[2].float() + 0.5) * 2.0**-32, words[3].float() * 2.0**-32),
    ]


def _normals64(words: Words) -> list[Tensor]:
    return _box_muller(*_uniforms64(words))


def _box_muller(radius: Tensor, angle: Tensor) -> list[Tensor]:
    """Two standard normals: Box & Muller, "A Note on the Generation of Random Normal Deviates", 1958."""
    length, turn = (-2.0 * radius.log()).sqrt(), 2.0 * math.pi * angle
    return [length * turn.cos(), length * turn.sin()]


def _in_double(high: Tensor, low: Tensor) -> Tensor:
    # 52 bits, as above.
    return ((high >> 6).double() * 2.0**26 + (low >> 6).double() + 0.5) * 2.0**-52


_NUMBERS = {
    ("uniform", False): _uniforms32,
    ("uniform", True): _uniforms64,
    ("normal", False): _normals32,
    ("normal", True): _normals64,
}
